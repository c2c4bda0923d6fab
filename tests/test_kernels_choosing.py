"""Blocks inside kernels that look for the largest of each row, and that sort rows."""

from memcalc.catalog.find import find_gpu
from memcalc.kernels import Scratch, sort_scratch, topk_scratch
from memcalc.units import MIB

_H100 = find_gpu("h100-80gb")


def test_one_block_looks_at_a_row_that_is_not_long() -> None:
    for rows, length in ((1, 19_999), (20, 19_999), (21, 9_999), (80, 7_999), (199, 4_999), (799, 2_999), (4_000, 799)):
        assert topk_scratch(rows=rows, length=length, dtype="bf16", gpu=_H100) == Scratch()
        assert topk_scratch(rows=rows, length=length + 1, dtype="bf16", gpu=_H100).after
    assert topk_scratch(rows=4_001, length=399, dtype="bf16", gpu=_H100) == Scratch()


def test_blocks_that_share_a_row_count_its_digits() -> None:
    values, wanted, desired, counts, summed, above, equal = topk_scratch(
        rows=2, length=32768, dtype="bf16", gpu=_H100
    ).after
    assert (values, wanted, desired, summed) == (2 * 2, 2 * 2 * 4, 2 * 2 * 4, 2 * 256 * 4)
    assert (counts, above, equal) == (64 * 512, 64 * 4, 64 * 4)  # of 1,024 tokens each
    long = topk_scratch(rows=8, length=2**20, dtype="fp32", gpu=_H100).after
    assert long[3] == 8 * 98 * 512  # of 42 tokens a thread: as many blocks as the card runs at once
    assert sum(long) < MIB


def test_a_sort_of_more_than_4096_writes_each_tokens_place_first() -> None:
    assert sort_scratch(rows=4, length=4096) == Scratch(after=(4096 * 8,))
    assert sort_scratch(rows=4, length=4097) == Scratch(after=(4 * 4097 * 8,) * 2)
    assert sort_scratch(rows=128, length=4097) == Scratch(after=(128 * 4097 * 8,))
    assert sort_scratch(rows=1, length=4097) == Scratch(after=(4097 * 8,))
