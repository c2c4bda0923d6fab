"""Operators beside attention: those that the table gives blocks, and those of which it says nothing."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op

aten = torch.ops.aten

_ROWS, _WIDTH, _VOCABULARY = 4096, 2048, 32000


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _softmax()
    yield from _sums()
    for dtype in ("bf16", "fp32"):
        for name, op in PLAIN.items():

            def prepare(device: str, op: Callable[[str, torch.dtype], Op] = op, dtype: str = dtype) -> Op:
                return op(device, DTYPES[dtype])

            yield Case(name, {"dtype": dtype}, prepare)


def _softmax() -> Iterator[Case]:
    for dtype in ("bf16", "fp32"):
        kind = DTYPES[dtype]

        def backward(device: str, kind: torch.dtype = kind) -> Op:
            out = aten._softmax.default(_normal(device, kind), -1, False)
            grad = _normal(device, kind)
            return lambda: aten._softmax_backward_data.default(grad, out, -1, kind)

        def safe(device: str, kind: torch.dtype = kind) -> Op:
            scores = _normal(device, kind)
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


def _normal(device: str, kind: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.empty(shape or (_ROWS, _WIDTH), dtype=kind, device=device).normal_()


def _dropout(device: str, kind: torch.dtype) -> Op:
    x = _normal(device, kind)
    return lambda: aten.native_dropout.default(x, 0.1, True)


def _dropout_backward(device: str, kind: torch.dtype) -> Op:
    grad, mask = _normal(device, kind), torch.zeros(_ROWS, _WIDTH, dtype=torch.bool, device=device)
    return lambda: aten.native_dropout_backward.default(grad, mask, 1.1)


def _layer_norm_backward(device: str, kind: torch.dtype) -> Op:
    x, weight, bias = _normal(device, kind), _normal(device, kind, _WIDTH), _normal(device, kind, _WIDTH)
    _, mean, rstd = aten.native_layer_norm.default(x, [_WIDTH], weight, bias, 1e-5)
    grad = _normal(device, kind)
    return lambda: aten.native_layer_norm_backward.default(
        grad, x, [_WIDTH], mean, rstd, weight, bias, [True, True, True]
    )


def _log_softmax(device: str, kind: torch.dtype) -> Op:
    logits = _normal(device, kind, 512, _VOCABULARY)
    return lambda: aten._log_softmax.default(logits, -1, False)


def _log_softmax_backward(device: str, kind: torch.dtype) -> Op:
    out = aten._log_softmax.default(_normal(device, kind, 512, _VOCABULARY), -1, False)
    grad = torch.empty_like(out).normal_()
    return lambda: aten._log_softmax_backward_data.default(grad, out, -1, kind)


def _nll(device: str, kind: torch.dtype) -> Op:
    scores, target = _normal(device, kind, 512, _VOCABULARY), torch.zeros(512, dtype=torch.int64, device=device)
    return lambda: aten.nll_loss_forward.default(scores, target, None, 1, -100)


def _nll_backward(device: str, kind: torch.dtype) -> Op:
    scores, target = _normal(device, kind, 512, _VOCABULARY), torch.zeros(512, dtype=torch.int64, device=device)
    loss, weight = aten.nll_loss_forward.default(scores, target, None, 1, -100)
    return lambda: aten.nll_loss_backward.default(loss, scores, target, None, 1, -100, weight)


def _silu_backward(device: str, kind: torch.dtype) -> Op:
    x, grad = _normal(device, kind), _normal(device, kind)
    return lambda: aten.silu_backward.default(grad, x)


def _gelu_backward(device: str, kind: torch.dtype) -> Op:
    x, grad = _normal(device, kind), _normal(device, kind)
    return lambda: aten.gelu_backward.default(grad, x)


def _linear(device: str, kind: torch.dtype) -> Op:
    x, weight, bias = _normal(device, kind), _normal(device, kind, _WIDTH, _WIDTH), _normal(device, kind, _WIDTH)
    return lambda: aten.addmm.default(bias, x, weight)


def _batched(device: str, kind: torch.dtype) -> Op:
    x, y = _normal(device, kind, 16, 256, 64), _normal(device, kind, 16, 64, 256)
    return lambda: aten.bmm.default(x, y)


def _sum_of_rows(device: str, kind: torch.dtype) -> Op:
    x = _normal(device, kind)
    return lambda: aten.sum.dim_IntList(x, [0])


def _adamw(device: str, kind: torch.dtype) -> Op:
    tensors = [[_normal(device, kind)] for _ in range(4)]
    steps = [torch.ones((), device=device)]
    settings = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    return lambda: aten._fused_adamw_.default(*tensors, [], steps, **settings, amsgrad=False, maximize=False)


PLAIN: dict[str, Callable[[str, torch.dtype], Op]] = {
    "native_dropout": _dropout,
    "native_dropout_backward": _dropout_backward,
    "native_layer_norm_backward": _layer_norm_backward,
    "_log_softmax": _log_softmax,
    "_log_softmax_backward_data": _log_softmax_backward,
    "nll_loss_forward": _nll,
    "nll_loss_backward": _nll_backward,
    "silu_backward": _silu_backward,
    "gelu_backward": _gelu_backward,
    "addmm": _linear,
    "bmm": _batched,
    "sum of rows": _sum_of_rows,
    "_fused_adamw_": _adamw,
}
