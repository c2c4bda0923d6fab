"""Which kernel sdpa takes, and what it does to its arguments before."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch.nn import functional as F

from memcalc.profiling.kernels.case import Case, Op, heads
from memcalc.profiling.kernels.probe import Inside
from memcalc.profiling.pinning import BACKENDS, choice

_LENGTHS = ((684, 684), (1, 684), (684, 1), (128, 256))
_HEADS = ((16, 16), (16, 4))
_DIMENSIONS = (36, 60, 64, 80, 128, 200, 256, 264)
_B, _N, _S = 2, 2, 684

REFUSALS = ("No available kernel", "No viable backend")  # torch's words where the pinned kernel cannot run


def cases() -> Iterator[Case]:
    """All of them."""
    for dtype, (n, kv), d in product(("fp32", "bf16", "fp16"), _HEADS, _DIMENSIONS):
        for training, masked in product((False, True), (False, True)):
            yield _choice(dtype, n, kv, 684, 684, d, training=training, masked=masked, causal=not masked)
    for (q_len, k_len), causal, dropout in product(_LENGTHS, (False, True), (0.0, 0.1)):
        yield _choice("bf16", 16, 16, q_len, k_len, 64, training=True, masked=False, causal=causal, dropout=dropout)
    for kernel in BACKENDS:
        yield Case("takes_gqa", {"kernel": kernel}, _with_fewer_heads(kernel), lambda _, result: result is not None)
    for d in (36, 60, 64, 100):
        yield Case("flash_padded_head_dim", {"head_dim": d}, _pinned("flash", d, None), _padded_head_dim)
    for width in (683, 684, 687):
        yield Case("efficient_mask_width", {"k_len": width}, _pinned("efficient", 64, width), _mask_width(width))


def _choice(
    dtype: str,
    n: int,
    kv: int,
    q_len: int,
    k_len: int,
    d: int,
    *,
    training: bool,
    masked: bool,
    causal: bool,
    dropout: float = 0.0,
) -> Case:
    def prepare(device: str) -> Op:
        q, k = heads((_B, n, q_len, d), dtype, device), heads((_B, kv, k_len, d), dtype, device)
        q.requires_grad_(training)
        mask = torch.ones(_B, 1, q_len, k_len, dtype=torch.bool, device=device) if masked else None
        return lambda: choice(q, k, k, mask, dropout, causal, enable_gqa=n != kv)

    arguments = {
        "dtype": dtype,
        "training": training,
        "q_len": q_len,
        "k_len": k_len,
        "head_dim": d,
        "heads": n,
        "kv_heads": kv,
        "masked": masked,
        "causal": causal,
        "dropout": dropout,
    }
    return Case("sdpa_kernel", arguments, prepare, lambda _, result: result)


def _with_fewer_heads(kernel: str) -> Any:
    """The kernel pinned over fewer K/V heads: its output, or None where it refuses."""

    def prepare(device: str) -> Op:
        q, k = heads((_B, 8, 128, 64), "fp16", device), heads((_B, 2, 128, 64), "fp16", device)

        def attend() -> torch.Tensor | None:
            try:
                with _only(kernel):
                    return F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
            except RuntimeError as error:
                if not str(error).startswith(REFUSALS):
                    raise
                return None

        return attend

    return prepare


def _pinned(kernel: str, d: int, width: int | None) -> Any:
    def prepare(device: str) -> Op:
        k_len = width or _S
        q, k = heads((_B, _N, _S, d), "fp16", device), heads((_B, _N, k_len, d), "fp16", device)
        mask = None if width is None else torch.ones(_B, 1, _S, width, dtype=torch.bool, device=device)

        def attend() -> torch.Tensor:
            with _only(kernel):
                return F.scaled_dot_product_attention(q, k, k, mask, is_causal=mask is None)

        return attend

    return prepare


def _only(kernel: str) -> Any:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(getattr(SDPBackend, BACKENDS[kernel]))


def _padded_head_dim(inside: Inside, _: Any) -> int:
    """From the first block, a padded q; without one nothing was padded, and the output is the first."""
    return inside.births[0] // (_B * _N * _S * 2)


def _mask_width(k_len: int) -> Any:
    """From the mask's padded copy, the one block with a row for each query that is wider than there are keys."""

    def read(inside: Inside, _: Any) -> int | None:
        row = _B * _S * 2
        widths = [nbytes // row for nbytes in inside.births if nbytes % row == 0]
        return next((width for width in widths if width > k_len), None)

    return read
