"""Which kernel torch.nn.functional.scaled_dot_product_attention takes on a card.

Source: PyTorch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, select_sdp_backend and the checks that it
lists, read at commits of 2026 shortly before and after 2.13; where they differ, the older one with the headers of
2.13's own wheel. Unverified on a GPU.
"""

from typing import NamedTuple

from memcalc.errors import InvalidWorkload
from memcalc.kernels.gpu import Gpu


class Attention(NamedTuple):
    """What the choice depends on; lengths and counts of one call."""

    dtype: str
    training: bool  # a gradient is wanted for q, k or v
    q_len: int
    k_len: int
    head_dim: int
    heads: int
    kv_heads: int
    masked: bool
    causal: bool
    dropout: float
    gqa: bool  # whether the caller says that fewer key heads are meant (enable_gqa)


def sdpa_kernel(
    gpu: Gpu,
    *,
    dtype: str,
    training: bool,
    q_len: int,
    k_len: int,
    head_dim: int,
    heads: int,
    kv_heads: int,
    masked: bool,
    causal: bool,
    pinned: str | None = None,
    dropout: float = 0.0,
    gqa: bool = True,
) -> str:
    """The kernel taken: flash, efficient, cudnn or math.

    cuDNN comes first on compute capability 9 and 10 since PyTorch 2.11, whose wheels bring a cuDNN above 9.15
    (check_prefer_cudnn_attention; TORCH_CUDNN_SDPA_DEPRIORITIZED unset). Elsewhere cuDNN stands behind math
    (ATen/Context.h, sdp_priority_order) and is never reached.
    Raises: InvalidWorkload where `pinned` cannot run; the remedy is another kernel, or none pinned.
    """
    call = Attention(dtype, training, q_len, k_len, head_dim, heads, kv_heads, masked, causal, dropout, gqa)
    if pinned is not None:
        reason = _REFUSALS[pinned](gpu, call) if pinned in _REFUSALS else None
        if reason is not None:
            raise InvalidWorkload(f"the {pinned} attention kernel {reason}: pin another one, or let sdpa choose")
        return pinned
    order = ("cudnn", "flash", "efficient") if gpu.capability[0] in {9, 10} else ("flash", "efficient")
    return next((kernel for kernel in order if _REFUSALS[kernel](gpu, call) is None), "math")


def check_dtypes(call: str, *dtypes: str) -> None:
    """Raise InvalidWorkload where the inputs of a product differ in dtype. Autocast would have cast them.

    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp, validate_sdpa_input.
    """
    if len(set(dtypes)) > 1:
        raise InvalidWorkload(
            f"torch refuses this: {call} takes one dtype, not {', '.join(dtypes)}; use --amp, or another "
            "--kbit-prepare over a packed base"
        )


def takes_gqa(kernel: str) -> bool:
    """Whether a kernel takes fewer K/V heads than query heads; for others K and V are repeated before the call.

    Source: PyTorch 2.13, ATen/native/transformers/sdp_utils_cpp.h, check_batch_size_and_num_heads_dense, which has
    no GQA for the efficient kernel yet (later sources do), and torch/nn/functional.py on scaled_dot_product_attention.
    """
    return kernel != "efficient"


def _flash_refuses(gpu: Gpu, call: Attention) -> str | None:
    """Why aten's flash kernel cannot run (can_use_flash_attention)."""
    if not (8, 0) <= gpu.capability <= (12, 1):
        return f"needs compute capability 8.0 to 12.1, {gpu.name} has {_dotted(gpu)}"
    if call.dtype not in {"bf16", "fp16"}:
        return f"takes bf16 and fp16, not {call.dtype}"
    if call.masked:
        return "takes no mask"
    if call.head_dim > 256:
        return f"takes head dimensions up to 256, not {call.head_dim}"
    if call.training and ((8, 6) <= gpu.capability <= (8, 9) or gpu.capability[0] == 12):
        limited = 192 < call.head_dim <= 224 or (call.head_dim > 224 and call.dropout > 0)
        if limited:
            return f"has no backward for head dimension {call.head_dim} on compute capability {_dotted(gpu)}"
    if call.causal and call.q_len != call.k_len:
        return f"is causal only where queries and keys are equally long, not {call.q_len} and {call.k_len}"
    return _heads_refuse(call)


def _efficient_refuses(gpu: Gpu, call: Attention) -> str | None:
    """Why the memory-efficient kernel cannot run (can_use_mem_efficient_attention, minimum_gemm_alignment)."""
    if not (5, 0) <= gpu.capability <= (12, 1):
        return f"needs compute capability 5.0 to 12.1, {gpu.name} has {_dotted(gpu)}"
    if call.dtype == "bf16" and gpu.capability < (8, 0):
        return f"takes bf16 from compute capability 8.0 on, {gpu.name} has {_dotted(gpu)}"
    half = call.dtype != "fp32"
    alignment = 4 if gpu.capability >= (8, 0) else 1
    if half and gpu.capability >= (7, 0):
        alignment = 8
    if call.head_dim % alignment:
        return f"takes head dimensions that are multiples of {alignment}, not {call.head_dim}"
    if call.kv_heads != call.heads and not takes_gqa("efficient"):
        return f"takes as many key heads as query heads, not {call.kv_heads} and {call.heads}"
    return None


def _cudnn_refuses(gpu: Gpu, call: Attention) -> str | None:
    """Why the cuDNN kernel cannot run (can_use_cudnn_attention with cuDNN 9.15 or newer)."""
    if not (8, 0) <= gpu.capability <= (12, 1):
        return f"needs compute capability 8.0 to 12.1, {gpu.name} has {_dotted(gpu)}"
    if call.dtype not in {"bf16", "fp16"}:
        return f"takes bf16 and fp16, not {call.dtype}"
    limit = 256 if gpu.capability == (9, 0) else 128
    if call.head_dim > limit or call.head_dim % 8:
        return f"takes head dimensions up to {limit} that are multiples of 8, not {call.head_dim}"
    if call.k_len == 1:
        return "takes more than one key"
    return _heads_refuse(call)


def _heads_refuse(call: Attention) -> str | None:
    """check_batch_size_and_num_heads_dense (sdp_utils_cpp.h)."""
    if call.heads != call.kv_heads and not call.gqa:
        return f"is not told of GQA: it takes as many key heads as query heads, not {call.kv_heads} and {call.heads}"
    if call.heads % call.kv_heads:
        return f"takes a number of key heads that divides that of query heads, not {call.kv_heads} and {call.heads}"
    return None


_REFUSALS = {"flash": _flash_refuses, "efficient": _efficient_refuses, "cudnn": _cudnn_refuses}


def _dotted(gpu: Gpu) -> str:
    major, minor = gpu.capability
    return f"{major}.{minor}"
