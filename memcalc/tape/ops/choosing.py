"""Some entries of each row: which are the largest, what stands there, and sums put back there.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml and
torch/csrc/autograd/FunctionsManual.cpp (gather_backward).
"""

from memcalc import kernels
from memcalc.kernels import Gpu
from memcalc.tape.layouts import Shape
from memcalc.tape.tape import Array, Tensor, new, record, save, scratch, wants


def largest(x: Array, count: int, gpu: Gpu) -> Array:
    """Where the `count` largest of each row of x (b, s) stand, in any order: (b, count).

    Allocates: their values, which die at once, and the places; inside, what the kernel does.
    """
    rows, length = x.shape
    values = new((rows, count), x.dtype, "topk")
    places = new((rows, count), "int64", "topk")
    scratch(kernels.topk_scratch(rows=rows, length=length, dtype=x.dtype, gpu=gpu).after, "topk")
    del values
    return places


def ascending(x: Array) -> Array:
    """Each row of x (b, n) of int64 in order. Allocates: the result, and where each stood, which dies at once."""
    rows, length = x.shape
    values = new(x.shape, x.dtype, "sort")
    places = new(x.shape, "int64", "sort")
    scratch(kernels.sort_scratch(rows=rows, length=length).after, "sort")
    del places
    return values


def gather(x: Tensor, index: Array, shape: Shape) -> Tensor:
    """The entries of a dim at `index`, which is expanded to the `shape` of the result.

    Saves: the index and x. Backward allocates: a zeroed block of the full shape, filled in place.
    """
    full, dtype = x.shape, x.dtype
    kept = (save(index), save(x.data)) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept[0].get(), kept[1].get()
        gradient = new(full, dtype, "new_zeros")
        del held
        return [gradient]

    return record(new(shape, dtype, "gather"), (x,), backward)


def scatter_add(x: Tensor, index: Array, y: Tensor) -> Tensor:
    """x, and y added to its entries of a dim at `index`, which is expanded to y's shape.

    Allocates: the output. Saves: the index, if y needs a gradient. Backward allocates: what y's gradient gathers.
    """
    kept = save(index) if wants(y) else None
    shape = y.shape

    def backward(g: Array) -> list[Array | None]:
        if kept is None:
            return [g, None]
        held = kept.get()
        gy = new(shape, g.dtype, "gather")
        del held
        return [g, gy]

    return record(new(x.shape, x.dtype, "scatter_add"), (x, y), backward)
