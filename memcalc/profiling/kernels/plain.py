"""Operators of which the table says nothing: none should allocate a block of its own."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Callable, Iterator

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal

aten = torch.ops.aten

_ROWS, _WIDTH, _VOCABULARY = 4096, 2048, 32000


def cases() -> Iterator[Case]:
    """All of them."""
    for dtype in ("bf16", "fp32"):
        for name, op in OPERATORS.items():

            def prepare(device: str, op: Callable[[str, torch.dtype], Op] = op, dtype: str = dtype) -> Op:
                return op(device, DTYPES[dtype])

            yield Case(name, {"dtype": dtype}, prepare)


def _dropout(device: str, kind: torch.dtype) -> Op:
    x = normal(device, kind, _ROWS, _WIDTH)
    return lambda: aten.native_dropout.default(x, 0.1, True)


def _dropout_backward(device: str, kind: torch.dtype) -> Op:
    grad, mask = normal(device, kind, _ROWS, _WIDTH), torch.zeros(_ROWS, _WIDTH, dtype=torch.bool, device=device)
    return lambda: aten.native_dropout_backward.default(grad, mask, 1.1)


def _layer_norm_backward(device: str, kind: torch.dtype) -> Op:
    x, weight, bias = normal(device, kind, _ROWS, _WIDTH), normal(device, kind, _WIDTH), normal(device, kind, _WIDTH)
    _, mean, rstd = aten.native_layer_norm.default(x, [_WIDTH], weight, bias, 1e-5)
    grad = normal(device, kind, _ROWS, _WIDTH)
    return lambda: aten.native_layer_norm_backward.default(
        grad, x, [_WIDTH], mean, rstd, weight, bias, [True, True, True]
    )


def _log_softmax(device: str, kind: torch.dtype) -> Op:
    logits = normal(device, kind, 512, _VOCABULARY)
    return lambda: aten._log_softmax.default(logits, -1, False)


def _log_softmax_backward(device: str, kind: torch.dtype) -> Op:
    out = aten._log_softmax.default(normal(device, kind, 512, _VOCABULARY), -1, False)
    grad = torch.empty_like(out).normal_()
    return lambda: aten._log_softmax_backward_data.default(grad, out, -1, kind)


def _nll(device: str, kind: torch.dtype) -> Op:
    scores, target = normal(device, kind, 512, _VOCABULARY), torch.zeros(512, dtype=torch.int64, device=device)
    return lambda: aten.nll_loss_forward.default(scores, target, None, 1, -100)


def _nll_backward(device: str, kind: torch.dtype) -> Op:
    scores, target = normal(device, kind, 512, _VOCABULARY), torch.zeros(512, dtype=torch.int64, device=device)
    loss, weight = aten.nll_loss_forward.default(scores, target, None, 1, -100)
    return lambda: aten.nll_loss_backward.default(loss, scores, target, None, 1, -100, weight)


def _silu_backward(device: str, kind: torch.dtype) -> Op:
    x, grad = normal(device, kind, _ROWS, _WIDTH), normal(device, kind, _ROWS, _WIDTH)
    return lambda: aten.silu_backward.default(grad, x)


def _gelu_backward(device: str, kind: torch.dtype) -> Op:
    x, grad = normal(device, kind, _ROWS, _WIDTH), normal(device, kind, _ROWS, _WIDTH)
    return lambda: aten.gelu_backward.default(grad, x)


def _linear(device: str, kind: torch.dtype) -> Op:
    x, weight, bias = (
        normal(device, kind, _ROWS, _WIDTH),
        normal(device, kind, _WIDTH, _WIDTH),
        normal(device, kind, _WIDTH),
    )
    return lambda: aten.addmm.default(bias, x, weight)


def _batched(device: str, kind: torch.dtype) -> Op:
    x, y = normal(device, kind, 16, 256, 64), normal(device, kind, 16, 64, 256)
    return lambda: aten.bmm.default(x, y)


def _sum_of_rows(device: str, kind: torch.dtype) -> Op:
    x = normal(device, kind, _ROWS, _WIDTH)
    return lambda: aten.sum.dim_IntList(x, [0])


def _scatter_add(device: str, kind: torch.dtype) -> Op:
    """Of rows that are chosen, as Mixture-of-Depths puts them back."""
    x, y = normal(device, kind, 2, _ROWS, _WIDTH), normal(device, kind, 2, _ROWS // 8, _WIDTH)
    places = torch.arange(_ROWS // 8, device=device).view(1, -1, 1).expand(y.shape)
    return lambda: aten.scatter_add.default(x, 1, places, y)


def _index_add(device: str, kind: torch.dtype) -> Op:
    """The backward of index_select."""
    x, y = normal(device, kind, _ROWS, _WIDTH), normal(device, kind, _ROWS // 8, _WIDTH)
    places = torch.arange(_ROWS // 8, device=device)
    return lambda: aten.index_add_.default(x, 0, places, y)


def _adamw(device: str, kind: torch.dtype) -> Op:
    tensors = [[normal(device, kind, _ROWS, _WIDTH)] for _ in range(4)]
    steps = [torch.ones((), device=device)]
    settings = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    return lambda: aten._fused_adamw_.default(*tensors, [], steps, **settings, amsgrad=False, maximize=False)


OPERATORS: dict[str, Callable[[str, torch.dtype], Op]] = {
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
    "scatter_add": _scatter_add,
    "index_add_": _index_add,
    "_fused_adamw_": _adamw,
}
