"""PiSSA's part: A and B are the weight's largest singular values and vectors, and the weight is what is left of it.

Source: peft 0.21.2, tuners/lora/layer.py, LoraLayer.pissa_init; PyTorch 2.13, torch/_lowrank.py, _svd_lowrank.
"""

from typing import TYPE_CHECKING

from memcalc.methods.of_lora.dora import A, B
from memcalc.methods.of_lora.from_weight import block, orthonormal, product, raised, replace, svd
from memcalc.tape.tape import Array

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


def initialized(m: "Builder", module: str, init: str) -> tuple[Array, Array]:
    """A and B; the weight becomes another."""
    name = f"{module}.weight"
    shape, dtype = m.parameters[name].shape, m.parameters[name].dtype
    (rank, d_in), (d_out, _) = (m.declared_adapters[f"{module}.{part}"].shape for part in (A, B))
    weight = raised(shape, dtype)
    parts = decomposed(d_out, d_in, rank, _iterations(init))
    a, b = _rooted((rank, d_in), rank), _rooted((d_out, rank), rank)
    scaled = block((d_out, rank), "mul")
    update = product((d_out, d_in))
    del scaled
    rest = block(shape, "sub")
    del update, weight
    replace(m, name, rest)
    del parts
    return a, b


def _rooted(shape: tuple[int, int], rank: int) -> Array:
    """Singular vectors times a diagonal matrix of the roots of singular values."""
    roots = block((rank,), "sqrt")
    diagonal = block((rank, rank), "diag_embed")
    del roots
    out = product(shape)
    del diagonal
    return out


def decomposed(d_out: int, d_in: int, rank: int, iterations: int | None) -> list[Array]:
    """U, S and V of the weight: all of them, or the first `rank` after so many iterations, the longer matrix first."""
    if iterations is None:
        return svd(d_out, d_in)
    long, short = max(d_out, d_in), min(d_out, d_in)
    basis = _basis(long, short, rank, iterations)
    projected = product((rank, short))
    u, s, v = svd(rank, short)
    u = product((long, rank))
    del basis, projected
    return [u, s, v]


def _basis(long: int, short: int, rank: int, iterations: int) -> Array:
    """get_approximate_basis: orthonormal columns (long, rank)."""
    drawn = block((short, rank), "randn")
    x = product((long, rank))
    basis = orthonormal(long, rank)
    for _ in range(iterations):
        for rows in (short, long):
            x = product((rows, rank))
            basis = orthonormal(rows, rank)
    del drawn, x
    return basis


def _iterations(init: str) -> int | None:
    """Of the fast decomposition; None: the exact one."""
    _, fast, iterations = init.partition("_niter_")
    return int(iterations) if fast else None
