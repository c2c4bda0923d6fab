"""scaled_dot_product_attention on meta, with the kernel that CUDA would choose."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad

from memcalc import kernels
from memcalc.kernels import Gpu
from memcalc.tracing.attention_math import additive, math_attention
from memcalc.tracing.attention_scratch import DTYPE_NAMES

aten = torch.ops.aten


class Chooser:
    """The composite's body as CUDA runs it; remembers the kernels taken.

    Source: aten/src/ATen/native/transformers/attention.cpp, scaled_dot_product_attention; the choice itself:
    kernels.sdpa_kernel.
    """

    def __init__(self, gpu: Gpu, pinned: str | None) -> None:
        self.gpu, self.pinned = gpu, pinned
        self.taken: dict[str, None] = {}

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        kernels.check_dtypes("attention", *(DTYPE_NAMES[x.dtype] for x in (query, key, value)))
        training = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        kernel = kernels.sdpa_kernel(
            self.gpu,
            dtype=DTYPE_NAMES[query.dtype],
            training=training,
            q_len=query.shape[-2],
            k_len=key.shape[-2],
            head_dim=query.shape[-1],
            heads=query.shape[-3],
            kv_heads=key.shape[-3],
            masked=attn_mask is not None,
            causal=is_causal,
            pinned=self.pinned,
            dropout=dropout_p,
            gqa=enable_gqa,
        )
        self.taken[kernel] = None
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        if kernel == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        if kernel == "efficient":
            mask = None if attn_mask is None else _efficient_mask(attn_mask, query, key)
            return aten._scaled_dot_product_efficient_attention.default(
                query, key, value, mask, training, dropout_p, is_causal, scale=scale
            )[0]
        if kernel == "cudnn":
            mask = None if attn_mask is None else additive(attn_mask, query.dtype)
            return aten._scaled_dot_product_cudnn_attention.default(
                query, key, value, mask, training, dropout_p, is_causal, False, scale=scale
            )[0]
        mask = None if attn_mask is None else additive(attn_mask, query.dtype)
        return math_attention(query, key, value, mask, dropout_p, is_causal, scale, enable_gqa)


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float, is_causal: bool, scale: float
) -> torch.Tensor:
    """The head dimension is padded for the kernel and the output sliced (attention.cpp, pad_last_dim)."""
    head_dim = query.shape[-1]
    missing = kernels.flash_padded_head_dim(head_dim) - head_dim
    padded = [pad(x, (0, missing)) if missing else x for x in (query, key, value)]
    out: torch.Tensor = aten._scaled_dot_product_flash_attention.default(
        *padded, dropout_p, is_causal, False, scale=scale
    )[0]
    return out[..., :head_dim] if missing else out


def _efficient_mask(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Rows that do not start at a multiple of 8 elements are padded, then sliced (attention.cpp, preprocess_mask)."""
    mask = additive(mask, query.dtype)
    aligned = all(stride % 8 == 0 for stride in mask.stride()[:-1]) and mask.stride(-1) == 1
    if not aligned:
        width = mask.shape[-1]
        mask = pad(mask, (0, kernels.efficient_mask_width(width) - width))[..., :width]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def composites(chooser: Chooser) -> dict[Any, Callable[..., Any]]:
    """What to install for a chooser to be asked."""
    return {aten.scaled_dot_product_attention.default: chooser}
