"""sdpa's fused kernels, forward and backward, called as scaled_dot_product_attention calls them."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import Case, Op, device_bytes, heads

aten = torch.ops.aten

Shape = tuple[int, int, int, int, int]  # batch, heads, K/V heads, length, head dimension

SHAPES: tuple[Shape, ...] = (
    (1, 32, 8, 684, 128),
    (4, 16, 16, 1024, 64),
    (2, 8, 2, 2048, 80),
    (1, 8, 8, 100, 96),
    (1, 4, 4, 4096, 256),
)
SHORT: tuple[Shape, ...] = ((1, 8, 8, 128, 64), (1, 32, 32, 512, 128), (2, 4, 4, 333, 128))


def cases() -> Iterator[Case]:
    """All of them."""
    for shape, dropout in product((*SHAPES, *SHORT), (0.0, 0.1)):
        yield from _flash(shape, dropout)
    for shape in SHAPES:
        for dtype, masked in product(("fp16", "bf16", "fp32"), (False, True)):
            yield from _efficient(shape, dtype, masked=masked)
        yield from _cudnn(shape)


def _flash(shape: Shape, dropout: float) -> Iterator[Case]:
    b, n, kv, s, d = shape

    def forward(device: str, dtype: str = "fp16") -> Op:
        q, k, v = _qkv(shape, dtype, device)
        return lambda: aten._scaled_dot_product_flash_attention.default(q, k, v, dropout, True, False)

    def backward(device: str, *, grad_inside: bool) -> Op:
        q, k, v = _qkv(shape, "fp16", device)
        saved = aten._scaled_dot_product_flash_attention.default(q, k, v, dropout, True, False)
        grad = heads((b, n, s, d), "fp16", device, inside=grad_inside)
        return lambda: aten._scaled_dot_product_flash_attention_backward.default(
            grad, q, k, v, saved[0], *saved[1:6], dropout, True, saved[6], saved[7]
        )

    lengths = {"batch": b, "q_len": s, "k_len": s, "heads": n, "head_dim": d}
    yield Case("flash_forward_scratch", {**lengths, "dropout": dropout}, forward)
    if dropout:
        yield Case("flash_seed_bytes", {"dropout": True}, forward, _two_bytes_of(6, 7))
        return
    yield Case("flash_lse_shape", {"batch": b, "heads": n, "q_len": s}, forward, _shape_of(1))
    yield Case("flash_seed_bytes", {"dropout": False}, forward, _two_bytes_of(6, 7))
    for grad_inside in (True, False):
        arguments = {**lengths, "kv_heads": kv, "dtype": "fp16", "grad_copied": not grad_inside}

        def prepare(device: str, grad_inside: bool = grad_inside) -> Op:
            return backward(device, grad_inside=grad_inside)

        yield Case("flash_backward_scratch", arguments, prepare)


def _efficient(shape: Shape, dtype: str, *, masked: bool) -> Iterator[Case]:
    b, n, _, s, d = shape
    repeated = (b, n, n, s, d)  # takes no fewer K/V heads

    def inputs(device: str) -> tuple[Any, ...]:
        q, k, v = _qkv(repeated, dtype, device)
        width = -(-s // 8) * 8
        mask = torch.zeros(b, 1, s, width, dtype=q.dtype, device=device)[..., :s].expand(b, n, s, s) if masked else None
        return q, k, v, mask

    def forward(device: str) -> Op:
        q, k, v, mask = inputs(device)
        causal = not masked
        return lambda: aten._scaled_dot_product_efficient_attention.default(q, k, v, mask, True, 0.0, causal)

    def backward(device: str, *, grad_inside: bool) -> Op:
        q, k, v, mask = inputs(device)
        causal = not masked
        out, lse, *seeds = aten._scaled_dot_product_efficient_attention.default(q, k, v, mask, True, 0.0, causal)
        grad = heads((b, n, s, d), dtype, device, inside=grad_inside)
        wanted = [True, True, True, False]
        return lambda: aten._scaled_dot_product_efficient_attention_backward.default(
            grad, q, k, v, mask, out, lse, *seeds, 0.0, wanted, causal
        )

    lengths = {"batch": b, "q_len": s, "heads": n, "head_dim": d, "dtype": dtype}
    yield Case("efficient_forward_scratch", lengths, forward)
    yield Case("efficient_lse_shape", {"batch": b, "heads": n, "q_len": s, "training": True}, forward, _shape_of(1))
    yield Case("efficient_seed_bytes", {}, forward, _two_bytes_of(2, 3))
    for grad_inside in (True, False):
        arguments = {**lengths, "k_len": s, "masked": masked, "grad_copied": not grad_inside}

        def prepare(device: str, grad_inside: bool = grad_inside) -> Op:
            return backward(device, grad_inside=grad_inside)

        yield Case("efficient_backward_scratch", arguments, prepare)


def _cudnn(shape: Shape) -> Iterator[Case]:
    b, n, _, s, d = shape

    def forward(device: str) -> Op:
        q, k, v = _qkv(shape, "fp16", device)
        return lambda: aten._scaled_dot_product_cudnn_attention.default(q, k, v, None, True, 0.0, True, False)

    def backward(device: str) -> Op:
        q, k, v = _qkv(shape, "fp16", device)
        saved = aten._scaled_dot_product_cudnn_attention.default(q, k, v, None, True, 0.0, True, False)
        grad = heads((b, n, s, d), "fp16", device)
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = saved
        return lambda: aten._scaled_dot_product_cudnn_attention_backward.default(
            grad, q, k, v, out, lse, seed, offset, None, cum_q, cum_k, max_q, max_k, 0.0, True
        )

    yield Case("cudnn attention", {"batch": b, "q_len": s, "heads": n, "head_dim": d}, forward)
    yield Case("cudnn_lse_shape", {"batch": b, "heads": n, "q_len": s}, forward, _shape_of(1))
    yield Case("cudnn_seed_bytes", {}, forward, _two_bytes_of(6, 7))
    yield Case("cudnn_backward_scratch", {"batch": b, "q_len": s, "heads": n, "head_dim": d}, backward)


def _qkv(shape: Shape, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    b, n, kv, s, d = shape
    q = heads((b, n, s, d), dtype, device)
    return q, heads((b, kv, s, d), dtype, device), heads((b, kv, s, d), dtype, device)


def _shape_of(index: int) -> Any:
    return lambda _, result: list(result[index].shape)


def _two_bytes_of(first: int, second: int) -> Any:
    def read(_: Any, result: Any) -> list[int]:
        place = result[0].device.type
        return [device_bytes(result[first], place), device_bytes(result[second], place)]

    return read
