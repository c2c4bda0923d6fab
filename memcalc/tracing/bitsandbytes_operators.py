"""bitsandbytes' operators as CUDA runs them: those that are others in a row are opened, kernels' own blocks noted.

Source: bitsandbytes 0.50.2, backends/cuda/ops.py, backends/default/ops.py. Unverified on a GPU, but for four bits.
"""

from collections.abc import Callable
from typing import Any

import torch

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch
from memcalc.tracing.attention_scratch import DTYPE_NAMES

ops = torch.ops.bitsandbytes


def gemm_4bit(gpu: Gpu) -> Callable[..., Scratch]:
    """The scratch of a product with a packed weight."""

    def scratch(
        x: torch.Tensor,
        packed: torch.Tensor,
        shape: Any,
        absmax: torch.Tensor,
        blocksize: int,
        quant_type: str,
        bias: torch.Tensor | None = None,
        absmax_8bit: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Scratch:
        n, k = shape
        rows = x.numel() // k
        return kernels.gemm_4bit_scratch(gpu, rows, n, k, DTYPE_NAMES[x.dtype], double_quant=absmax_8bit is not None)

    return scratch


def int8_mixed_product(
    x: torch.Tensor,
    codes: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    weight_scales: torch.Tensor,
    outliers: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """int8_mixed_scaled_mm where no column holds an outlier: which do, only data can tell."""
    picked = torch.empty(0, device=x.device, dtype=x.dtype)
    return int8_product(codes, weight, scales, weight_scales, bias, x.dtype), picked


def int8_product(
    x: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """int8_scaled_mm: whole numbers first, then the real ones."""
    product = ops.int8_linear_matmul.default(x, weight)
    result: torch.Tensor = ops.int8_mm_dequant.default(product, scales, weight_scales, dtype, bias)
    return result


def int8_dequantized(x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """int8_vectorwise_dequant (_ops.py): plain torch on CUDA too, a product with the scales, then with 1 / 127."""
    return x * scales.view(-1, 1) * (1 / 127)


def int8_rows(x: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """int8_vectorwise_quant without outliers; the scales are born before the codes."""
    scales = torch.empty(x.numel() // x.shape[-1], dtype=torch.float32, device=x.device)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    return codes, scales, torch.empty(0, dtype=torch.int64, device=x.device) if threshold > 0 else None


def int8_rows_scratch(x: torch.Tensor, threshold: float = 0.0) -> Scratch:
    return kernels.int8_quant_scratch(x.numel() // x.shape[-1], x.shape[-1], threshold=threshold)


def int8_dequant_scratch(
    product: torch.Tensor, scales: Any, weight_scales: Any, dtype: torch.dtype | None = None, *args: Any
) -> Scratch:
    name = DTYPE_NAMES[dtype or torch.float16]
    return kernels.int8_dequant_scratch(product.numel() // product.shape[-1], product.shape[-1], name)
