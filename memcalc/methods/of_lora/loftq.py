"""LoftQ's part: the weight is quantized and dequantized again, A and B are the largest singular values of what it lost.

Source: peft 0.21.2, tuners/lora/layer.py, LoraLayer.loftq_init; utils/loftq_utils.py, loftq_init; bitsandbytes 0.50.2,
nn/modules.py, Params4bit._quantize; functional.py, quantize_4bit.
"""

from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.formats import BLOCK_4BIT
from memcalc.methods.of_lora.dora import A
from memcalc.methods.of_lora.from_weight import block, product, raised, replace, svd
from memcalc.tape.tape import Array, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


def initialized(m: "Builder", module: str, iterations: int) -> tuple[Array, Array]:
    """A and B; the weight becomes another. Every round empties the cache."""
    if tape.device == "cpu":
        raise InvalidWorkload("--init-lora-weights loftq cannot go with --device cpu: it quantizes weights on a GPU")
    name = f"{module}.weight"
    shape = rows, columns = m.parameters[name].shape
    rank = m.declared_adapters[f"{module}.{A}"].shape[0]
    weight = raised(shape, m.parameters[name].dtype)
    rest = block(shape, "clone")
    for left in reversed(range(iterations)):
        tape.timeline.empty_cache()
        packed = _packed(shape)
        dequantized = block(shape, "dequantize_4bit")
        rest = block(shape, "sub")
        parts, b, a = _decomposed(rows, columns, rank)
        if left:
            update = product(shape)
            rest = block(shape, "sub")
            del update
    replace(m, name, dequantized)
    del weight, rest, packed, parts
    return a, b


def _packed(shape: tuple[int, ...]) -> list[Array]:
    """Codes, and what dequantizes them; the weight comes from the host in fp32, and goes."""
    count = shape[0] * shape[1]
    copied = block(shape, "to")
    absmax = block((BLOCK_4BIT.absmax_count(count),), "quantize_4bit")
    codes = new((BLOCK_4BIT.packed_bytes(count), 1), "uint8", "quantize_4bit", "adapter")
    code = block((16,), "code")
    size, largest = block((16,), "abs"), block((), "max")
    del size, largest, copied
    return [codes, absmax, code]


def _decomposed(rows: int, columns: int, rank: int) -> tuple[list[Array], Array, Array]:
    """_low_rank_decomposition: U, S and V, then the left and the right factor."""
    parts = svd(rows, columns)
    least = min(rows, columns)
    left = _rooted((rows, rank), (least, rank), least)
    right = _rooted((rank, columns), (rank, least), least)
    return parts, left, right


def _rooted(shape: tuple[int, int], roots: tuple[int, int], least: int) -> Array:
    """Singular vectors times the roots of a diagonal matrix, of which rows or columns are taken."""
    diagonal = block((least, least), "diag_embed")
    root = block(roots, "sqrt")
    del diagonal
    out = product(shape)
    del root
    return out
