"""PiSSA's part: A and B are the weight's largest singular values and vectors, and the weight is what is left of it.

What cuSOLVER allocates for itself is in none of it.
Source: peft 0.21.2, tuners/lora/layer.py, LoraLayer.pissa_init; PyTorch 2.13, torch/_lowrank.py, _svd_lowrank.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.methods.of_lora.dora import A, B
from memcalc.tape.tape import Array, Tensor, gemm, like, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

_NAME = re.compile(r"pissa(?:_niter_(\d+))?")


def names(init: str) -> bool:
    """Whether an initialization is PiSSA's."""
    return _NAME.fullmatch(init) is not None


def making(m: "Builder", module: str, init: str) -> Iterator[str]:
    """A and B are computed in fp32, then cast to the weight's dtype, one by one."""
    weight = m.parameters.get(f"{module}.weight")
    if weight is None:
        raise InvalidWorkload(
            f"--init-lora-weights {init} cannot go with --quant: peft decomposes the weight of {module}, no packed one"
        )
    half = weight.dtype != "fp32"
    del weight
    a, b = _initialized(m, module, init)
    if half:
        yield A
        del a
        yield B
        del b
    else:  # computed, and so there
        m.parameters[f"{module}.{A}"], m.parameters[f"{module}.{B}"] = Tensor(a), Tensor(b)


def _initialized(m: "Builder", module: str, init: str) -> tuple[Array, Array]:
    """A and B in fp32; the weight becomes another."""
    tape.scope = module
    name = f"{module}.weight"
    shape, dtype = m.parameters[name].shape, m.parameters[name].dtype
    (rank, d_in), (d_out, _) = (m.declared_adapters[f"{module}.{part}"].shape for part in (A, B))
    weight = None if dtype == "fp32" else _block(shape, "to")
    parts = _decomposed(d_out, d_in, rank, init)
    a, b = _rooted((rank, d_in), rank), _rooted((d_out, rank), rank)
    scaled = _block((d_out, rank), "mul")
    product = _product((d_out, d_in))
    del scaled
    rest = _block(shape, "sub")
    del product, weight
    if dtype != "fp32":
        rest = like(rest, "to", dtype)
    rest.settle("weights")
    m.parameters[name] = Tensor(rest)
    del parts
    return a, b


def _rooted(shape: tuple[int, int], rank: int) -> Array:
    """Singular vectors times a diagonal matrix of the roots of singular values."""
    roots = _block((rank,), "sqrt")
    diagonal = _block((rank, rank), "diag_embed")
    del roots
    out = _product(shape)
    del diagonal
    return out


def _decomposed(d_out: int, d_in: int, rank: int, init: str) -> list[Array]:
    """U, S and V of the weight: all of them, or the first `rank` after so many iterations."""
    iterations = _iterations(init)
    if iterations is None:
        return _svd(d_out, d_in)
    long, short = max(d_out, d_in), min(d_out, d_in)
    basis = _basis(long, short, rank, iterations)
    projected = _product((rank, short))
    u, s, v = _svd(rank, short)
    u = _product((long, rank))
    del basis, projected
    return [u, s, v]


def _basis(long: int, short: int, rank: int, iterations: int) -> Array:
    """get_approximate_basis: orthonormal columns (long, rank)."""
    drawn = _block((short, rank), "randn")
    x = _product((long, rank))
    basis = _orthonormal(long, rank)
    for _ in range(iterations):
        for rows in (short, long):
            x = _product((rows, rank))
            basis = _orthonormal(rows, rank)
    del drawn, x
    return basis


def _orthonormal(rows: int, columns: int) -> Array:
    """Q of a QR decomposition, whose R dies at once."""
    q = _block((rows, columns), "linalg_qr")
    r = _block((columns, columns), "linalg_qr")
    del r
    return q


def _svd(rows: int, columns: int) -> list[Array]:
    least = min(rows, columns)
    return [_block(shape, "svd") for shape in ((rows, least), (least,), (least, columns))]


def _iterations(init: str) -> int | None:
    """Of the fast decomposition; None: the exact one."""
    found = _NAME.fullmatch(init)
    assert found is not None
    return None if found[1] is None else int(found[1])


def _block(shape: tuple[int, ...], op: str) -> Array:
    return new(shape, "fp32", op, "adapter")


def _product(shape: tuple[int, ...]) -> Array:
    out = _block(shape, "mm")
    gemm()
    return out
