"""Operators beside attention to which the table gives blocks."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal

aten = torch.ops.aten

_ROWS, _WIDTH = 4096, 2048


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _softmax()
    yield from _sums()
    yield from _rolls()


def _softmax() -> Iterator[Case]:
    for dtype in ("bf16", "fp32"):
        kind = DTYPES[dtype]

        def backward(device: str, kind: torch.dtype = kind) -> Op:
            out = aten._softmax.default(normal(device, kind, _ROWS, _WIDTH), -1, False)
            grad = normal(device, kind, _ROWS, _WIDTH)
            return lambda: aten._softmax_backward_data.default(grad, out, -1, kind)

        def safe(device: str, kind: torch.dtype = kind) -> Op:
            scores = normal(device, kind, _ROWS, _WIDTH)
            return lambda: aten._safe_softmax.default(scores, -1)

        yield Case("softmax_backward_scratch", {"nbytes": _ROWS * _WIDTH * kind.itemsize}, backward)
        yield Case("safe_softmax_scratch", {"rows": _ROWS, "width": _WIDTH, "dtype": dtype}, safe)


def _sums() -> Iterator[Case]:
    for sizes in ([2**24, 2**12, 100], [65536] * 40, [65537]):

        def norm(device: str, sizes: list[int] = sizes) -> Op:
            gradients = [torch.empty(size, device=device).normal_() for size in sizes]
            return lambda: aten._foreach_norm.Scalar(gradients, 2)

        yield Case("foreach_norm_scratch", {"sizes": sizes}, norm)
    for tokens, rows, dtype, copied in product((512, 3072, 3073, 8192), (1000, 50000), ("bf16", "fp32"), (False, True)):

        def embedding(device: str, call: Any = (tokens, rows, dtype, copied)) -> Op:
            return _embedding_backward(device, *call)

        arguments = {"tokens": tokens, "rows": rows, "width": 256, "dtype": dtype, "grad_copied": copied}
        yield Case("embedding_backward_scratch", arguments, embedding)


def _embedding_backward(device: str, tokens: int, rows: int, dtype: str, copied: bool) -> Op:
    indices = torch.arange(tokens, device=device).remainder(rows).view(1, tokens)
    grad = torch.empty(1, tokens, 256, dtype=DTYPES[dtype], device=device).normal_()
    if copied:
        grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
    return lambda: aten.embedding_dense_backward.default(grad, indices, rows, -1, False)


def _rolls() -> Iterator[Case]:
    """Of half of the columns, of all, and of rows that lie in memory as columns."""
    for dtype, layout in product(("bf16", "fp32"), ("half", "whole", "turned")):
        kind = DTYPES[dtype]

        def roll(device: str, kind: torch.dtype = kind, layout: str = layout) -> Op:
            x = normal(device, kind, _ROWS, _WIDTH)
            x = {"half": x[:, _WIDTH // 2 :], "whole": x, "turned": x.t()}[layout]
            return lambda: aten.roll.default(x, [64], [0])

        nbytes = _ROWS * _WIDTH * kind.itemsize // (2 if layout == "half" else 1)
        yield Case("roll_scratch", {"nbytes": nbytes, "copied": layout != "whole"}, roll)
