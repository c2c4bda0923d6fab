"""Dims in another order, and copies along one."""

from math import prod

from memcalc import kernels
from memcalc.formats import ITEMSIZE
from memcalc.tape.layouts import Shape, is_contiguous
from memcalc.tape.tape import Array, Tensor, new, record, scratch


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


def roll(x: Tensor) -> Tensor:
    """The entries of one dim, moved around it. Allocates: the output, contiguous. Backward allocates: likewise.

    Source: PyTorch 2.13, tools/autograd/derivatives.yaml, roll: the gradient rolled back.
    """

    def backward(g: Array) -> list[Array]:
        return [_rolled(g)]

    return record(_rolled(x.data), (x,), backward)


def _rolled(array: Array) -> Array:
    copied = not is_contiguous(array.shape, array.strides)
    blocks = kernels.roll_scratch(prod(array.shape) * ITEMSIZE[array.dtype], copied=copied)
    inside = scratch(blocks.before, "roll")
    out = new(array.shape, array.dtype, "roll")
    del inside
    return out
