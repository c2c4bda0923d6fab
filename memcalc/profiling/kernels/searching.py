"""Operators that look for entries: the largest of rows, rows in order, the places that a mask marks."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal, own_blocks

aten = torch.ops.aten

LEFT_OUT = ("cub_nonzero_workspace", "cub_unique_workspace")

_SMALL, _LARGE = 4096, 1_000_000  # where the kernel that sorts is another
_TOPK = (
    *((1, 19_999), (20, 20_000), (21, 9_999), (40, 10_000), (41, 7_999), (80, 8_000), (81, 4_999), (199, 5_000)),
    *((200, 2_999), (799, 3_000), (800, 799), (4_000, 800), (4_001, 399), (4_001, 400)),
    *((2, 512), (8, 4096), (1, 32_768)),  # Mixture-of-Depths, by rows and tokens
    *((4, 2**20), (1, 2**24), (4096, 8192)),  # blocks with more to do
)
_SORT = (
    *((1, 64), (1, _SMALL + 1), (8, 512), (8, _SMALL), (8, _SMALL + 1)),
    *((127, _SMALL + 1), (128, _SMALL + 1), (2, _LARGE - 1), (2, _LARGE)),
)
_MARKED = ((20,), (512,), (4096,), (2, 512), (8, 4096), (2048, 2048), (8192, 2048))  # CPT's, then SHiRA's
_DISTINCT = (20, 511, 2047, 4096, 8192)
_ENTRIES = (1000, 2592, 100_000)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _largest()
    for rows, length in _SORT:

        def sort(device: str, shape: tuple[int, int] = (rows, length)) -> Op:
            x = torch.arange(shape[0] * shape[1], device=device).mul(7919).remainder(shape[1]).view(shape)
            return lambda: aten.sort.default(x, 1, False)

        yield Case("sort_scratch", {"rows": rows, "length": length}, sort)
    yield from _places()


def _largest() -> Iterator[Case]:
    for (rows, length), dtype in product(_TOPK, ("bf16", "fp32")):

        def topk(device: str, kind: torch.dtype = DTYPES[dtype], shape: tuple[int, int] = (rows, length)) -> Op:
            x = normal(device, kind, *shape)
            return lambda: aten.topk.default(x, max(1, shape[1] // 8), 1, True, False)

        yield Case("topk_scratch", {"rows": rows, "length": length, "dtype": dtype}, topk)
    for dtype, length in product(("bf16", "fp32"), (2**20, 2**22)):  # a whole weight's, as SuperTuning finds them

        def of_all(device: str, kind: torch.dtype = DTYPES[dtype], length: int = length) -> Op:
            x = normal(device, kind, length)
            return lambda: aten.topk.default(x, length // 10)

        yield Case("topk of a vector, in order", {"dtype": dtype, "length": length}, of_all)


def _places() -> Iterator[Case]:
    for shape in _MARKED:

        def nonzero(device: str, shape: tuple[int, ...] = shape) -> Op:
            mask = _thirds(device, torch.Size(shape).numel()).eq(0).view(shape)
            return lambda: aten.nonzero.default(mask)

        yield Case("cub_nonzero_workspace", {"shape": list(shape)}, nonzero, own_blocks)
    for count in _DISTINCT:

        def unique(device: str, count: int = count) -> Op:
            x = _thirds(device, count).float()
            return lambda: aten._unique2.default(x)

        yield Case("cub_unique_workspace", {"count": count}, unique, own_blocks)
    for entries, dtype in product(_ENTRIES, ("bf16", "fp32")):  # the backward of an index, which adds

        def put(device: str, call: Any = (entries, DTYPES[dtype])) -> Op:
            count, kind = call
            gradient, values = normal(device, kind, 2 * count), normal(device, kind, count)
            places = torch.arange(count, device=device)
            return lambda: aten._index_put_impl_.default(gradient, [places], values, True, True)

        yield Case("_index_put_impl_ that adds", {"entries": entries, "dtype": dtype}, put)


def _thirds(device: str, count: int) -> torch.Tensor:
    return torch.arange(count, device=device).remainder(3)
