"""Number formats, a row each: bytes per element, and how a quantized weight is stored."""

from typing import NamedTuple, NoReturn

from memcalc.errors import InvalidWorkload

ITEMSIZE = {
    "fp64": 8,
    "fp32": 4,
    "bf16": 2,
    "fp16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
}

HALF = frozenset(("bf16", "fp16"))

_RANK = {
    "bool": 0,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 3,
    "int64": 4,
    "bf16": 5,
    "fp16": 5,
    "fp32": 6,
    "fp64": 7,
}


def promote(left: str, right: str) -> str:
    """The dtype of an element-wise result of two tensors with at least one dimension.

    Source: PyTorch 2.13, c10/core/ScalarType.h, promoteTypes (bf16 with fp16 gives fp32).
    """
    if left == right:
        return left
    if {left, right} == HALF:
        return "fp32"
    return left if _RANK[left] >= _RANK[right] else right


class Block4Bit(NamedTuple):
    """bitsandbytes' 4-bit storage of a weight with n elements (nf4 and fp4 alike).

    Stored: codes uint8 (ceil(n / 2), 1); absmax fp32, one per block; the code's 16 values in fp32.
    Double quantization: absmax becomes uint8, with a nested absmax fp32 per nested block, an offset fp32
    and a 256-entry map that one process shares.
    Source: bitsandbytes 0.50.2, functional.py, quantize_4bit and QuantState.
    """

    block: int = 64
    nested_block: int = 256

    def packed_bytes(self, n: int) -> int:
        return (n + 1) // 2

    def absmax_count(self, n: int) -> int:
        return -(-n // self.block)

    def nested_count(self, n: int) -> int:
        return -(-self.absmax_count(n) // self.nested_block)


BLOCK_4BIT = Block4Bit()

# llama.cpp's block formats, as `--quant gguf:TYPE` names them. Source: gguf 0.19.0, constants.py, GGMLQuantizationType.
GGUF_TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"),
    *("MXFP4", "NVFP4", "Q1_0", "BF16", "F16", "F32"),
)


def refuse_packed_training(name: str) -> NoReturn:
    """Raise InvalidWorkload where a parameter of the base that is to train is packed."""
    raise InvalidWorkload(f"--quant packs {name}, and what is packed does not train")
