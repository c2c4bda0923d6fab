"""Blocks inside kernels on matrices that are stored by their entries (COO). Unverified on a GPU.

cub's own buffers are left out, as in reductions.py.
"""

from memcalc.kernels.gpu import ITEMSIZE, Scratch

_PLACE = 8  # an int64


def sparse_add_scratch(*, numel: int, entries: int, dtype: str, values: str, common: str) -> Scratch:
    """Blocks inside dense.add_(sparse): `numel` elements in `dtype`, `entries` in `values`, summed in `common`.

    Where that is not the dense matrix's own dtype: the result in it, then the dense matrix in it, and it is copied
    back. Entries are found by their place in the flattened matrix.
    Source: PyTorch, aten/src/ATen/native/sparse/cuda/SparseCUDATensorMath.cu, add_out_dense_sparse_cuda;
    sparse/FlattenIndicesCommon.h, read at commits of 2024 and 2025.
    """
    wide = (numel * ITEMSIZE[common],) * 2 if dtype != common else ()
    cast = (entries * ITEMSIZE[common],) if values != common else ()
    return Scratch(before=(*wide, *cast, entries * _PLACE))


def sparse_mask_scratch(*, entries: int, dtype: str) -> Scratch:
    """Blocks inside dense.sparse_mask(sparse) before its places and its values: a one, what stands at the places.

    Source: PyTorch, aten/src/ATen/native/sparse/SparseTensor.cpp, sparse_mask; SparseTensorMath.cpp,
    intersection_binary_op_sparse_dense_out, read at commits of 2025.
    """
    size = ITEMSIZE[dtype]
    return Scratch(before=(size, entries * size))
