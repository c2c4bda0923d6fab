"""flash-attn's functions where the library is not installed, or cannot run: its blocks without its kernels."""

# ruff: noqa: ARG001, ARG004, ARG005 - flash-attn's signatures

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from memcalc import kernels
from memcalc.tracing.attention_scratch import DTYPE_NAMES

_UTILS = "transformers.modeling_flash_attention_utils"
_CACHED = ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_pad_fn", "_unpad_fn")  # by lazy_import_…


class _Attention(torch.autograd.Function):
    """flash_attn_func's graph node: q, k, v (b, s, heads, head_dim) -> out like q.

    Saves: q, k, v, out, logsumexp fp32 (b, heads, s), rng_state int64 (2).
    Source: flash-attn 2, flash_attn_interface.py, FlashAttnFunc; csrc/flash_attn/flash_api.cpp, mha_fwd, mha_bwd.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        batch, length, heads, _ = q.shape
        out = torch.empty_like(q)
        lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
        rng_state = torch.empty(2, dtype=torch.int64, device=q.device)
        if any(x.requires_grad for x in (q, k, v)):
            ctx.save_for_backward(q, k, v, out, lse, rng_state)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, *_ = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        scratch = kernels.flash_library_backward_scratch(
            batch=q.shape[0],
            q_len=q.shape[1],
            k_len=k.shape[1],
            heads=q.shape[2],
            kv_heads=k.shape[2],
            head_dim=q.shape[3],
            dtype=DTYPE_NAMES[q.dtype],
        )
        held = [torch.empty(n, dtype=torch.uint8, device=q.device) for n in (*scratch.before, *scratch.after)]
        del held
        return dq, dk, dv


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention over (b, s, heads, head_dim); transformers asks for these parameters by name."""
    return _Attention.apply(q, k, v)


def _not_here(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("packed or padded rows under --attention flash need the real flash-attn library")


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Let transformers find a flash_attn module inside a `with` block."""
    module, padding = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.bert_padding")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    module.flash_attn_varlen_func = module.flash_attn_with_kvcache = _not_here  # type: ignore[attr-defined]
    padding.pad_input = padding.unpad_input = _not_here  # type: ignore[attr-defined]
    yes = {
        f"{_UTILS}.is_flash_attn_2_available": lambda *args, **kwargs: True,
        "transformers.modeling_utils.PreTrainedModel._flash_attn_can_dispatch": lambda *args, **kwargs: True,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules, {"flash_attn": module, "flash_attn.bert_padding": padding}))
        for name, answer in yes.items():
            stack.enter_context(mock.patch(name, answer))
        for name in _CACHED:
            stack.enter_context(mock.patch(f"{_UTILS}.{name}", None))
        yield
