"""PSOFT's A and B: the part of a weight that its largest singular values make up.

Source: peft 0.21.2, tuners/psoft/layer.py, PsoftLayer._build_psoft_ab_cache_buffers. What cuSOLVER allocates for itself
is not in it.
"""

from memcalc.methods.of_lora.from_weight import block, product, raised
from memcalc.methods.of_lora.pissa import decomposed
from memcalc.tape.tape import Array, on_cuda


def subspace(weight: Array, rank: int, iterations: int | None, *, rooted: bool) -> tuple[Array, Array]:
    """A (rank, d_in) and B (d_out, rank), in fp32.

    iterations: of a fast decomposition; rooted: both have the roots of singular values, else B has them whole.
    """
    d_out, d_in = weight.shape
    copied = raised(weight.shape, weight.dtype)
    parts = decomposed(d_out, d_in, rank, iterations)
    scaled = block((rank,), "div")
    if rooted:
        roots = block((rank,), "sqrt")
        a, b = _scaled((rank, d_in), rank), _scaled((d_out, rank), rank)
        del roots
    else:
        b = _scaled((d_out, rank), rank)
        turned = iterations is not None and d_out < d_in  # the longer matrix comes first
        laid_out = (on_cuda() and not turned) or (iterations is not None and rank == 1)
        a = _first_rows(parts[0 if turned else 2], (rank, d_in), laid_out=laid_out)
    del copied, parts, scaled
    return a, b


def _scaled(shape: tuple[int, int], rank: int) -> Array:
    """Singular vectors times a diagonal matrix."""
    diagonal = block((rank, rank), "diag_embed")
    out = product(shape)
    del diagonal
    return out


def _first_rows(found: Array, shape: tuple[int, int], *, laid_out: bool) -> Array:
    """Right singular vectors, one in a row: a view of all that were found where they are `laid_out` by rows, as
    cuSOLVER does it and as one alone always is; else a copy, of columns.

    Source: PyTorch 2.13, aten/src/ATen/native/BatchLinearAlgebra.cpp, TORCH_META_FUNC(_linalg_svd).
    """
    return found.view(shape, (shape[1], 1)) if laid_out else block(shape, "clone")
