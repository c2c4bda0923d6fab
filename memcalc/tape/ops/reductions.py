"""Sums and norms over dims.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml and
torch/csrc/autograd/FunctionsManual.cpp (sum_backward, linalg_vector_norm_backward).
"""

from memcalc.formats import HALF
from memcalc.tape.layouts import Shape
from memcalc.tape.tape import Array, Tensor, like, new, record, save, tape, wants


def total(x: Tensor, dim: int) -> Tensor:
    """The sum over a dim, which is dropped; in fp32 under autocast. Backward: the gradient, expanded."""
    full = x.shape

    def backward(g: Array) -> list[Array]:
        return [_expanded(g, dim, full)]

    return record(new((*full[:dim], *full[dim + 1 :]), _exact(x), "sum"), (x,), backward)


def total_of_all(x: Tensor) -> Tensor:
    """The sum of all entries; in fp32 under autocast. Backward: the gradient, expanded."""
    full = x.shape

    def backward(g: Array) -> list[Array]:
        return [g.view(full, (0,) * len(full))]

    return record(new((), _exact(x), "sum"), (x,), backward)


def average(x: Tensor, dim: int | None) -> Tensor:
    """The mean over a dim, which is dropped, or of all entries. Saves: nothing. Backward allocates: one full block."""
    full = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(full, g.dtype, "div")]

    kept = () if dim is None else (*full[:dim], *full[dim + 1 :])
    return record(new(kept, x.dtype, "mean"), (x,), backward)


def vector_norm(x: Tensor, dim: int | None) -> Tensor:
    """The 2-norm over a dim, which is dropped, or over all; in fp32 under autocast.

    Saves: x, the result. Backward allocates: x divided by its norm, a mask of zero norms, the gradient.
    """
    full = x.shape
    left = () if dim is None else (*full[:dim], *full[dim + 1 :])
    out = new(left, _exact(x), "linalg_vector_norm")
    kept = (save(x.data), save(out)) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = (kept[0].get(), kept[1].get())
        direction = like(held[0], "div", held[1].dtype if left else "")
        zero = like(held[1], "eq", "bool")
        gradient = like(direction, "mul")
        del held, zero, direction
        return [gradient]

    return record(out, (x,), backward)


def _exact(x: Tensor) -> str:
    """The dtype of a result that autocast has the op compute in fp32, without a cast of its input."""
    return "fp32" if tape.autocast is not None and x.dtype in HALF else x.dtype


def _expanded(array: Array, dim: int, full: Shape) -> Array:
    return array.view(full, (*array.strides[:dim], 0, *array.strides[dim:]))
