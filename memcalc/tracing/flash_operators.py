"""The flash-attn library's kernels as operators that run on meta: their outputs; scratch is noted beside them.

Source: flash-attn 2, flash_attn_interface.py (FlashAttnFunc, FlashAttnVarlenFunc); csrc/flash_attn/flash_api.cpp
(mha_fwd, mha_varlen_fwd, mha_bwd, mha_varlen_bwd). Unverified on a GPU.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch
from memcalc.tracing.attention_scratch import DTYPE_NAMES


def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float) -> tuple[torch.Tensor, ...]:
    """(b, s, heads, head_dim) -> out, logsumexp, rng_state."""
    batch, length, heads, _ = q.shape
    return _results(q, (batch, heads, length))


def _varlen_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float) -> tuple[torch.Tensor, ...]:
    """(tokens, heads, head_dim) of rows packed end to end -> out, logsumexp, rng_state."""
    tokens, heads, _ = q.shape
    return _results(q, (heads, tokens))


def _results(q: torch.Tensor, lse_shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    out = torch.empty_like(q)
    lse = torch.empty(lse_shape, dtype=torch.float32, device=q.device)
    return out, lse, torch.empty(2, dtype=torch.int64, device=q.device)


def _backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _varlen_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sequences: int
) -> tuple[torch.Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


_IMPLEMENTATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "flash_attn": ("(Tensor q, Tensor k, Tensor v, float dropout_p) -> (Tensor, Tensor, Tensor)", _forward),
    "flash_attn_varlen": (
        "(Tensor q, Tensor k, Tensor v, float dropout_p) -> (Tensor, Tensor, Tensor)",
        _varlen_forward,
    ),
    "flash_attn_backward": ("(Tensor grad, Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor, Tensor)", _backward),
    "flash_attn_varlen_backward": (
        "(Tensor grad, Tensor q, Tensor k, Tensor v, int sequences) -> (Tensor, Tensor, Tensor)",
        _varlen_backward,
    ),
}


@functools.cache
def operators() -> Any:
    """torch.ops.memcalc with the operators, registered once a process."""
    library = torch.library.Library("memcalc", "FRAGMENT")
    for name, (schema, run) in _IMPLEMENTATIONS.items():
        library.define(name + schema)
        library.impl(name, run, "Meta")
    operators.library = library  # type: ignore[attr-defined]  # it unregisters them when it dies
    return torch.ops.memcalc


def flash_attn_scratch(gpu: Gpu) -> dict[Any, Callable[..., Scratch]]:
    """The scratch of a call, by operator."""

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float) -> Scratch:
        batch, q_len, heads, head_dim = q.shape
        return kernels.flash_forward_scratch(
            gpu, batch=batch, q_len=q_len, k_len=k.shape[1], heads=heads, head_dim=head_dim, dropout=dropout_p
        )

    def backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Scratch:
        batch, q_len, heads, head_dim = q.shape
        return kernels.flash_library_backward_scratch(
            batch=batch,
            q_len=q_len,
            k_len=k.shape[1],
            heads=heads,
            kv_heads=k.shape[2],
            head_dim=head_dim,
            dtype=DTYPE_NAMES[q.dtype],
        )

    def varlen_backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sequences: int
    ) -> Scratch:
        total_q, heads, head_dim = q.shape
        return kernels.flash_varlen_backward_scratch(
            batch=sequences,
            total_q=total_q,
            total_k=k.shape[0],
            heads=heads,
            kv_heads=k.shape[1],
            head_dim=head_dim,
            dtype=DTYPE_NAMES[q.dtype],
        )

    ops = operators()
    return {
        ops.flash_attn.default: forward,
        ops.flash_attn_backward.default: backward,
        ops.flash_attn_varlen_backward.default: varlen_backward,
    }
