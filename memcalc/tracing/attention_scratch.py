"""Blocks inside sdpa's kernels, from the arguments of aten's operators: q, k, v are (b, heads, s, head_dim)."""

from collections.abc import Callable
from typing import Any

import torch

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch

aten = torch.ops.aten

DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def attention_scratch(gpu: Gpu) -> dict[Any, Callable[..., Scratch]]:
    """The scratch of a call, by operator."""

    def flash(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float = 0.0, *args: Any, **kwargs: Any
    ) -> Scratch:
        b, heads, q_len, head_dim = q.shape
        return kernels.flash_forward_scratch(
            gpu, batch=b, q_len=q_len, k_len=k.shape[2], heads=heads, head_dim=head_dim, dropout=dropout_p
        )

    def flash_backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, *args: Any, **kw: Any
    ) -> Scratch:
        b, heads, q_len, head_dim = q.shape
        return kernels.flash_backward_scratch(
            batch=b,
            q_len=q_len,
            k_len=k.shape[2],
            heads=heads,
            kv_heads=k.shape[1],
            head_dim=head_dim,
            dtype=DTYPE_NAMES[q.dtype],
            grad_copied=not _heads_inside(grad),
            out_copied=not _heads_inside(out),
        )

    def efficient(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> Scratch:
        b, heads, q_len, _ = q.shape
        return kernels.efficient_forward_scratch(
            batch=b, q_len=q_len, heads=heads, head_dim=v.shape[-1], dtype=DTYPE_NAMES[q.dtype]
        )

    def efficient_backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: Any, *args: Any, **kwargs: Any
    ) -> Scratch:
        b, heads, q_len, head_dim = q.shape
        return kernels.efficient_backward_scratch(
            gpu,
            batch=b,
            q_len=q_len,
            k_len=k.shape[2],
            heads=heads,
            head_dim=head_dim,
            dtype=DTYPE_NAMES[q.dtype],
            masked=bias is not None,
            grad_copied=not _heads_inside(grad),
        )

    def cudnn_backward(grad: torch.Tensor, q: torch.Tensor, *args: Any, **kwargs: Any) -> Scratch:
        b, heads, q_len, head_dim = q.shape
        return kernels.cudnn_backward_scratch(batch=b, q_len=q_len, heads=heads, head_dim=head_dim)

    return {
        aten._scaled_dot_product_flash_attention.default: flash,
        aten._scaled_dot_product_flash_attention_backward.default: flash_backward,
        aten._scaled_dot_product_efficient_attention.default: efficient,
        aten._scaled_dot_product_efficient_attention_backward.default: efficient_backward,
        aten._scaled_dot_product_cudnn_attention_backward.default: cudnn_backward,
    }


def _heads_inside(x: torch.Tensor) -> bool:
    """Whether (b, heads, s, head_dim) lies in memory as (b, s, heads, head_dim), as the kernels want it."""
    return x.transpose(1, 2).is_contiguous()
