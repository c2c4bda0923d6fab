"""Batched matrix products of factors in all layouts: what cuBLAS reads as it lies, and what is copied for it."""

from collections.abc import Iterator
from typing import Any

import torch

from memcalc.profiling.kernels.case import Case, Op, normal

aten = torch.ops.aten

_KINDS = (torch.bfloat16, torch.float32, torch.complex64)  # the last: of a Fourier transform
_N, _P, _Q, _R = 16, 256, 64, 128

_Layout = tuple[tuple[int, int, int], tuple[int, int, int]]  # shape and strides, in elements

_LEFT: dict[str, _Layout] = {
    "by rows": ((_N, _P, _Q), (_P * _Q, _Q, 1)),
    "by columns": ((_N, _P, _Q), (_P * _Q, 1, _P)),
    "parts of longer rows": ((_N, _P, _Q), (_P * 3 * _Q, 3 * _Q, 1)),
    "one for all": ((_N, _P, _Q), (0, _Q, 1)),
    "every second number": ((_N, _P, _Q), (2 * _P * _Q, 2 * _Q, 2)),
    "one number of each": ((_N, _P, _Q), (1, _N * _Q, _N)),
    "one row repeated": ((_N, _P, _Q), (_Q, 0, 1)),
}
_RIGHT: dict[str, _Layout] = {
    "by rows": ((_N, _Q, _R), (_Q * _R, _R, 1)),
    "by columns": ((_N, _Q, _R), (_Q * _R, 1, _Q)),
    "one number of each": ((_N, _Q, _R), (1, _N * _R, _N)),
}
_OF_ONE_ROW: tuple[_Layout, ...] = (
    ((_N, 1, _Q), (_Q, _Q, 1)),
    ((_N, 1, _Q), (_Q, 2, 1)),  # too short a stride, but of no second row
    ((_N, 1, _Q), (_Q, 0, 1)),
)
_OF_ONE_COLUMN: tuple[_Layout, ...] = (
    ((_N, _Q, 1), (_Q, 1, 1)),
    ((_N, _Q, 1), (_Q, 1, _Q)),
    ((_N, _Q, 1), (2 * _Q, 2, 2)),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for kind in _KINDS:
        for left, right in _pairs():

            def multiply(device: str, kind: torch.dtype = kind, both: Any = (left, right)) -> Op:
                factors = [_laid_out(device, kind, *layout) for layout in both]
                return lambda: aten.bmm.default(*factors)

            layouts = {name: [list(part) for part in one] for name, one in (("left", left), ("right", right))}
            yield Case("bmm_scratch", {**layouts, "itemsize": kind.itemsize}, multiply)


def _pairs() -> Iterator[tuple[_Layout, _Layout]]:
    for left in _LEFT.values():
        yield left, _RIGHT["by rows"]
    for right in list(_RIGHT.values())[1:]:
        yield _LEFT["by rows"], right
    yield _LEFT["one number of each"], _RIGHT["one number of each"]
    for left in _OF_ONE_ROW:
        yield left, _RIGHT["by rows"]
    for right in _OF_ONE_COLUMN:
        yield _LEFT["by rows"], right
    yield _LEFT["one number of each"], _OF_ONE_COLUMN[-1]


def _laid_out(device: str, kind: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return normal(device, kind, span).as_strided(shape, strides)
