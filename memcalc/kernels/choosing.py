"""Blocks inside kernels that look for the largest of each row, and that sort rows. Unverified on a GPU.

cub's own buffers are left out, as in reductions.py: the scans of a row that many blocks share, and all that sorts rows
of more than 4,096.
"""

from memcalc.kernels.gpu import ITEMSIZE, Gpu, Scratch

_DIGITS = 256  # values of the bits that a pass looks at
_THREADS = 256  # of a block
_BLOCKS_PER_SM = 6  # of 40 registers a thread, of 65,536
_ITEMS_PER_THREAD = range(4, 65)
_SMALL_SORT = 4096
_FEW_ROWS = 128
_LARGE_SORT = 1_000_000
_INDEX = 8  # an int64

# Rows up to so many, and the length from which on each is shared by several blocks; the last: any more rows.
_SHARED = ((20, 20_000), (40, 10_000), (80, 8_000), (199, 5_000), (799, 3_000), (4_000, 800))
_SHARED_BY_MANY = 400


def topk_scratch(*, rows: int, length: int, dtype: str, gpu: Gpu) -> Scratch:
    """Blocks inside topk of each row, unsorted: none where one block looks at a whole row.

    Else, for each row, the value that is looked for, how many are above it and its digits, twice; for each block, and
    for each row, how often each digit occurs; for each block how many it finds.
    Source: PyTorch, aten/src/ATen/native/cuda/TensorTopK.cu, should_use_multiblock, mbtopk::launch,
    get_items_per_thread, read at a commit of 2026.
    """
    shared_from = next((least for most, least in _SHARED if rows <= most), _SHARED_BY_MANY)
    if length < shared_from:
        return Scratch()
    at_once = gpu.sm_count * _BLOCKS_PER_SM * _THREADS
    each = min(max(-(-rows * length // at_once), _ITEMS_PER_THREAD[0]), _ITEMS_PER_THREAD[-1])
    blocks = rows * -(-length // (each * _THREADS))
    digits = 4  # radixes of halves are 32-bit numbers too
    per_row = rows * ITEMSIZE[dtype], 2 * rows * 4, 2 * rows * digits
    return Scratch(after=(*per_row, blocks * _DIGITS * 2, rows * _DIGITS * 4, blocks * 4, blocks * 4))


def sort_scratch(*, rows: int, length: int) -> Scratch:
    """Blocks inside a sort of each row of int64: the places of one row, or of all.

    Source: PyTorch, aten/src/ATen/native/cuda/Sort.cpp, sort_cuda_kernel; Sort.cu, launch_stable_sort_kernel, read at
    commits of 2022 to 2025.
    """
    if length <= _SMALL_SORT or rows == 1 or length >= _LARGE_SORT:
        return Scratch(after=(length * _INDEX,))
    return Scratch(after=(rows * length * _INDEX,) * (2 if rows < _FEW_ROWS else 1))
