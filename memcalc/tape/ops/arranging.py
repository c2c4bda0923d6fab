"""Dims in another order, and copies along one."""

from memcalc.tape.layouts import Shape
from memcalc.tape.tape import Array, Tensor, new, record


def permute(x: Tensor, dims: Shape) -> Tensor:
    """The dims in another order, each of `dims` being the old place of the new one. Allocates: nothing."""
    out = _permuted(x.data, dims)
    back = tuple(sorted(range(len(dims)), key=dims.__getitem__))

    def backward(g: Array) -> list[Array]:
        return [_permuted(g, back)]

    return record(out, (x,), backward)


def _permuted(array: Array, dims: Shape) -> Array:
    return array.view(tuple(array.shape[dim] for dim in dims), tuple(array.strides[dim] for dim in dims))


def repeat(x: Tensor, times: int, dim: int = 0) -> Tensor:
    """x several times along a dim. Allocates: the output. Backward allocates: the sum over the copies, if several."""
    before = x.shape

    def backward(g: Array) -> list[Array]:
        return [g if times == 1 else new(before, g.dtype, "sum")]

    shape = (*before[:dim], times * before[dim], *before[dim + 1 :])
    return record(new(shape, x.dtype, "repeat"), (x,), backward)
