"""Values put at given places of a block, and taken from there.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml.
"""

from memcalc.tape.layouts import Shape
from memcalc.tape.ops.views import view
from memcalc.tape.tape import Array, Tensor, like, new, record, save, wants


def placed(x: Tensor, base: Array, indices: tuple[Array, ...]) -> Tensor:
    """`base`, which needs no gradient, with x written at `indices` of its last dims: base[..., rows, columns] = x.

    Allocates: nothing. Saves: the indices. Backward allocates: what is read there. Leading dims of size 1 are
    dropped from x first, and so summed away behind.
    Source: PyTorch 2.13, torch/csrc/autograd/python_variable_indexing.cpp, THPVariable_setitem;
    aten/src/ATen/TensorIndexing.h, slicePrefix1sSize.
    """
    inner = x.shape
    while inner and inner[0] == 1:
        inner = inner[1:]
    return _placed(x if inner == x.shape else view(x, inner), base, indices, copied=False)


def placed_in_copy(x: Tensor, base: Array, indices: tuple[Array, ...]) -> Tensor:
    """base.index_put(indices, x): as `placed`, into a copy of the base."""
    return _placed(x, base, indices, copied=True)


def _placed(value: Tensor, base: Array, indices: tuple[Array, ...], *, copied: bool) -> Tensor:
    kept = [save(index) for index in indices] if wants(value) else []
    read = (*base.shape[: -len(indices)], *indices[0].shape)

    def backward(g: Array) -> list[Array]:
        held = [saved.get() for saved in kept]
        gradient = new(read, g.dtype, "index")
        del held
        return [gradient]

    return record(like(base, "index_put") if copied else base, (value,), backward)


def rows_replaced(x: Tensor, rows: Tensor, index: Array) -> Tensor:
    """A copy of x (n, width), which needs no gradient, with `rows` (k, width) in the places `index` (k,).

    Allocates: the output. Saves: the index, the rows. Backward allocates: the gradient's rows, seen through a view.
    """
    kept = (save(index), save(rows.data)) if wants(rows) else None
    out = like(x.data, "index_copy")
    shape = rows.shape

    def backward(g: Array) -> list[Array | None]:
        assert kept is not None
        held = [saved.get() for saved in kept]
        gradient = new(shape, g.dtype, "index_select")
        del held
        return [None, gradient.view(shape, gradient.strides)]

    return record(out, (x, rows), backward)


def where_true(x: Tensor, mask: Array, count: int) -> Tensor:
    """x[mask], where a mask of x's shape is true `count` times: (count,).

    Allocates: the places that are true, for the kernel; the output. Saves: the mask. Backward allocates: zeros of x's
    shape, and the places again, to fill them.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, index_backward.
    """
    full, dims = x.shape, len(x.shape)
    kept = save(mask) if wants(x) else None
    out = taken((count,), x.dtype, (count, dims))

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = new(full, g.dtype, "new_zeros")
        again = new((count, dims), "int64", "nonzero")
        del again, held
        return [gradient]

    return record(out, (x,), backward)


def taken(shape: Shape, dtype: str, places: Shape) -> Array:
    """What an index by a mask takes, whose `places`, how many are true by the mask's dims, are looked for first.

    Source: PyTorch 2.13, aten/src/ATen/native/IndexingUtils.h, expandTensors.
    """
    found = new(places, "int64", "nonzero")
    out = new(shape, dtype, "index")
    del found
    return out


def rows_of(x: Tensor, index: Array) -> Tensor:
    """torch.index_select: the entries of the first dim at `index` (k,).

    Allocates: the output. Saves: the index. Backward allocates: zeros of x's shape, filled in place.
    """
    full = x.shape
    kept = save(index) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = new(full, g.dtype, "new_zeros")
        del held
        return [gradient]

    return record(new((*index.shape, *full[1:]), x.dtype, "index_select"), (x,), backward)


def largest(x: Tensor, count: int) -> tuple[Tensor, Array]:
    """torch.topk: the `count` largest of the last dim, and where they stand.

    Allocates: both. Saves: the places. Backward allocates: zeros of x's shape, filled in place.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, value_selecting_reduction_backward.
    """
    full, dtype = x.shape, x.dtype
    shape = (*full[:-1], count)
    values, places = new(shape, dtype, "topk"), new(shape, "int64", "topk")
    kept = save(places) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = new(full, g.dtype, "scatter")
        del held
        return [gradient]

    return record(values, (x,), backward), places
