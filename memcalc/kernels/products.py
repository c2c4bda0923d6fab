"""Blocks inside batched matrix products. Unverified on a GPU."""

from collections.abc import Sequence
from math import prod

from memcalc.kernels.gpu import Scratch

Layout = tuple[Sequence[int], Sequence[int]]  # shape and strides, in elements


def bmm_scratch(left: Layout, right: Layout, itemsize: int) -> Scratch:
    """Copies of factors (n, p, q) and (n, q, r) whose matrices lie neither by rows nor by columns.

    Source: PyTorch, aten/src/ATen/native/cuda/Blas.cpp, baddbmm_out_cuda_impl, prepare_batch_matrix_for_cublas, read at
    commits of 2025: a structured kernel, so its output is there already. The factors change places in cuBLAS, which
    counts by columns, but where the product is a column.
    """
    factors = (left, right) if right[0][2] == 1 else (right, left)
    return Scratch(after=tuple(prod(one[0]) * itemsize for one in factors if not _is_read(*one)))


def _is_read(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether cuBLAS reads matrices as they lie."""
    _, rows, columns = shape
    _, by_row, by_column = strides
    if (by_column == 1 and by_row >= columns) or (by_row == 1 and by_column >= rows):
        return True
    return by_row != 0 and by_column != 0 and _is_contiguous(shape, strides)


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True
