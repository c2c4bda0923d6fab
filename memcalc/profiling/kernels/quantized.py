"""bitsandbytes' operators, with the arguments that its own modules give them."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op

_NEEDS = "bitsandbytes"
_ROWS = (1, 8, 64, 512, 2048)
_WEIGHTS = ((4096, 4096), (1024, 4096), (14336, 4096), (1000, 96))


def cases() -> Iterator[Case]:
    """All of them."""
    for rows, (n, k), dtype, double in product(_ROWS, _WEIGHTS, ("fp16", "bf16"), (False, True)):

        def multiply(device: str, call: Any = (rows, n, k, dtype, double)) -> Op:
            return _gemm_4bit(device, *call)

        arguments = {"rows": rows, "n": n, "k": k, "dtype": dtype, "double_quant": double}
        yield Case("gemm_4bit_scratch", arguments, multiply, needs=_NEEDS)
    yield Case("quantize_4bit", {}, _quantize_4bit, needs=_NEEDS)
    yield Case("quantize_blockwise", {}, _quantize_blockwise, needs=_NEEDS)
    yield Case("dequantize_4bit", {}, _dequantize_4bit, needs=_NEEDS)
    for threshold in (0.0, 6.0):

        def quantize(device: str, threshold: float = threshold) -> Op:
            x = torch.empty(1024, 4096, dtype=torch.float16, device=device).fill_(0.5)  # no outlier
            return lambda: torch.ops.bitsandbytes.int8_vectorwise_quant.default(x, threshold)

        arguments = {"rows": 1024, "columns": 4096, "threshold": threshold}
        yield Case("int8_quant_scratch", arguments, quantize, needs=_NEEDS)
    for dtype in ("fp16", "bf16"):

        def dequantize(device: str, dtype: str = dtype) -> Op:
            x = torch.ones(1024, 4096, dtype=torch.int32, device=device)
            rows, columns = torch.ones(1024, device=device), torch.ones(4096, device=device)
            return lambda: torch.ops.bitsandbytes.int8_mm_dequant.default(x, rows, columns, dtype=DTYPES[dtype])

        yield Case("int8_dequant_scratch", {"rows": 1024, "columns": 4096, "dtype": dtype}, dequantize, needs=_NEEDS)


def _packed(device: str, n: int, k: int, dtype: str, *, double: bool) -> Any:
    import bitsandbytes.functional

    weight = torch.empty(n, k, dtype=DTYPES[dtype], device=device).normal_()
    return bitsandbytes.functional.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")


def _gemm_4bit(device: str, rows: int, n: int, k: int, dtype: str, double: bool) -> Op:
    packed, state = _packed(device, n, k, dtype, double=double)
    x = torch.empty(rows, k, dtype=DTYPES[dtype], device=device).normal_()
    nested: dict[str, Any] = {}
    absmax = state.absmax
    if double:
        absmax = state.state2.absmax
        nested = {"absmax_8bit": state.absmax, "absmax_code": state.state2.code, "absmax_offset": state.offset}
    return lambda: torch.ops.bitsandbytes.gemm_4bit.default(
        x, packed.view(-1, 1), state.shape, absmax, state.blocksize, state.quant_type, **nested
    )


def _quantize_4bit(device: str) -> Op:
    weight = torch.empty(4096, 4096, dtype=DTYPES["bf16"], device=device).normal_()
    return lambda: torch.ops.bitsandbytes.quantize_4bit.default(weight, 64, "nf4", torch.uint8)


def _quantize_blockwise(device: str) -> Op:
    """Of the constants of quantization, which are quantized too."""
    constants, code = torch.empty(2**18, device=device).normal_(), torch.linspace(-1, 1, 256, device=device)
    return lambda: torch.ops.bitsandbytes.quantize_blockwise.default(constants, code, 256)


def _dequantize_4bit(device: str) -> Op:
    packed, state = _packed(device, 4096, 4096, "bf16", double=False)
    return lambda: torch.ops.bitsandbytes.dequantize_4bit.default(
        packed, state.absmax, state.blocksize, state.quant_type, state.shape, state.dtype
    )
