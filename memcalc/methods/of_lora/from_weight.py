"""Initializations that compute A and B from the weight, and put another in the weight's place.

What cuSOLVER allocates for itself is in none of them.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.methods.of_lora.dora import A, B
from memcalc.tape.tape import Array, Tensor, gemm, like, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

Compute = Callable[["Builder", str], tuple[Array, Array]]  # A and B in fp32


def making(m: "Builder", module: str, init: str, compute: Compute) -> Iterator[str]:
    """A and B are computed in fp32, then cast to the weight's dtype, one by one.

    Source: peft 0.21.2, tuners/lora/layer.py, LoraLayer.update_layer.
    """
    weight = m.parameters.get(f"{module}.weight")
    if weight is None:
        raise InvalidWorkload(
            f"--init-lora-weights {init} cannot go with --quant: peft decomposes the weight of {module}, no packed one"
        )
    half = weight.dtype != "fp32"
    del weight
    tape.scope = module
    a, b = compute(m, module)
    if half:
        yield A
        del a
        yield B
        del b
    else:  # computed, and so there
        m.parameters[f"{module}.{A}"], m.parameters[f"{module}.{B}"] = Tensor(a), Tensor(b)


def raised(shape: tuple[int, ...], dtype: str) -> Array | None:
    """An fp32 copy of a weight; None: it is one itself."""
    return None if dtype == "fp32" else block(shape, "to")


def replace(m: "Builder", name: str, computed: Array) -> None:
    """A weight becomes what was computed in fp32, in its own dtype."""
    dtype = m.parameters[name].dtype
    if dtype != "fp32":
        computed = like(computed, "to", dtype)
    computed.settle("weights")
    m.parameters[name] = Tensor(computed)


def svd(rows: int, columns: int) -> list[Array]:
    """U, S and V."""
    least = min(rows, columns)
    return [block(shape, "svd") for shape in ((rows, least), (least,), (least, columns))]


def orthonormal(rows: int, columns: int) -> Array:
    """Q of a QR decomposition, whose R dies at once."""
    q = block((rows, columns), "linalg_qr")
    r = block((columns, columns), "linalg_qr")
    del r
    return q


def product(shape: tuple[int, ...]) -> Array:
    """A matrix product."""
    out = block(shape, "mm")
    gemm()
    return out


def block(shape: tuple[int, ...], op: str) -> Array:
    """What the device holds in fp32 while adapters are made."""
    return new(shape, "fp32", op, "adapter")
