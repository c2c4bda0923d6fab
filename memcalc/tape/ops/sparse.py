"""Matrices by their entries (COO), made on the way to a dense one.

Source of the backward formula: PyTorch 2.13, tools/autograd/derivatives.yaml,
_sparse_coo_tensor_with_dims_and_tensors.
"""

from math import prod

from memcalc import kernels
from memcalc.formats import promote
from memcalc.tape.layouts import Shape
from memcalc.tape.tape import Array, Storage, Tensor, new, record, save, scratch, wants


class _Entries(Array):
    """A matrix that is stored by its values, and where they stand."""

    __slots__ = ("places",)

    def __init__(self, storage: Storage, shape: Shape, dtype: str, places: Array) -> None:
        super().__init__(storage, shape, (0,) * len(shape), dtype, is_view=True)
        self.places = places


def by_entries(values: Tensor, shape: Shape) -> Tensor:
    """torch.sparse_coo_tensor: a matrix of this shape with `values` (n,) at places that come as int32.

    Allocates: the places as int64. Saves: them and the values. Backward allocates: what masking the dense gradient
    does, a copy of the places, the gradient of the values.
    Source: PyTorch 2.13, torch/csrc/utils/tensor_new.cpp, sparse_coo_tensor_ctor.
    """
    count, dtype = values.shape[0], values.dtype
    matrix = _Entries(values.data.storage, shape, dtype, new((len(shape), count), "int64", "to"))
    kept = save(matrix) if wants(values) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        inner = scratch(kernels.sparse_mask_scratch(entries=count, dtype=g.dtype).before, "sparse_mask")
        places = new((len(shape), count), "int64", "sparse_mask")
        gradient = new((count,), g.dtype, "sparse_mask")
        del inner, held, places
        return [gradient]

    return record(matrix, (values,), backward)


def with_entries(x: Tensor, entries: Tensor) -> Tensor:
    """x += a matrix by entries. Allocates: what the kernel does. Backward: the same gradient."""
    blocks = kernels.sparse_add_scratch(
        numel=prod(x.shape),
        entries=_count(entries),
        dtype=x.dtype,
        values=entries.dtype,
        common=promote(x.dtype, entries.dtype),
    )
    scratch(blocks.before, "add_")

    def backward(g: Array) -> list[Array | None]:
        return [None, g]

    return record(x.data, (x, entries), backward)


def _count(entries: Tensor) -> int:
    assert isinstance(entries.data, _Entries)
    return entries.data.places.shape[1]
