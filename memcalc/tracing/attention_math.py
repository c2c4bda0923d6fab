"""sdpa's composite of plain operators, as CUDA runs it."""

import math

import torch

from memcalc import kernels
from memcalc.kernels import Scratch
from memcalc.tracing.attention_scratch import DTYPE_NAMES

aten = torch.ops.aten

_HALF = (torch.float16, torch.bfloat16)


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask as one that is added to the scores (attention.cpp, convert_boolean_attn_mask)."""
    if mask.dtype != torch.bool:
        return mask
    masked = torch.scalar_tensor(-math.inf, dtype=dtype, device=mask.device)
    return torch.where(mask, torch.scalar_tensor(0.0, dtype=dtype, device=mask.device), masked)


def math_attention(
    query_: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float,
    enable_gqa: bool,
) -> torch.Tensor:
    """Softmax of scaled scores times values, (b, heads, s, head_dim) -> the same.

    For meta tensors torch adds the mask out of place (they count as subclasses), on CUDA in place. Locals die
    where C++'s do; the second result's copy in half precision is made before the first, as GCC orders arguments.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math,
    pre_process_group_query_attention_input.
    """
    query_acc, key_acc, value_acc = (_accurate(x) for x in (query_, key, value))
    factor = math.sqrt(scale)
    query = aten.mul.Scalar(query_acc, factor)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key_acc.shape[-2], dtype=torch.bool, device=query.device).tril()
        attn_mask = additive(attn_mask, query.dtype)
    key_expanded, value_expanded = key_acc, value_acc
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        key_expanded = key_acc.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value_expanded = value_acc.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    attn = torch.matmul(query, aten.mul.Scalar(key_expanded.transpose(-2, -1), factor))
    if attn_mask is not None:
        attn.add_(attn_mask)
    attn = aten._safe_softmax.default(attn, -1)
    if dropout_p > 0:
        attn = torch.dropout(attn, dropout_p, train=True)
    weights = attn.to(query_.dtype)  # noqa: F841 - returned beside the output, and dropped by the caller
    return torch.matmul(attn, value_expanded).to(query_.dtype)


def safe_softmax_scratch(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Scratch:
    width = x.shape[dim]
    return kernels.safe_softmax_scratch(x.numel() // width, width, DTYPE_NAMES[dtype or x.dtype])


def _accurate(x: torch.Tensor) -> torch.Tensor:
    """Half precision is raised, unless the user allowed it to be reduced in."""
    if x.dtype in _HALF and not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed():
        return x.to(torch.float32)
    return x
