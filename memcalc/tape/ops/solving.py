"""Linear systems, bases and matrices of blocks. What cuSOLVER and cuBLAS allocate for themselves is not known here.

Source of the backward formulas: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp (linalg_solve_backward,
linalg_qr_backward, block_diag_backward).
"""

from math import prod

from memcalc.tape.tape import Array, Tensor, gemm, new, record, save, wants


def solved_from_right(a: Tensor, b: Tensor) -> Tensor:
    """torch.linalg.solve(a, b, left=False): X with X a = b, all of them (n, k, k) or (k, k).

    Allocates: X, the factors of a, their pivots in int32 (n, k), one info in int32 for each. Saves: a, the factors, the
    pivots, X. Backward allocates: b's gradient, by the factors; a's, a product and its negative.
    """
    *batch, k, _ = a.shape
    wanted = wants(a), wants(b)
    out = new(b.shape, b.dtype, "linalg_solve")
    factors, pivots = new(a.shape, a.dtype, "linalg_solve"), new((*batch, k), "int32", "linalg_solve")
    info = new(tuple(batch), "int32", "linalg_solve")
    kept = [save(a.data), save(factors), save(pivots), save(out)] if any(wanted) else []
    del factors, pivots, info
    shape, dtype = a.shape, a.dtype

    def backward(g: Array) -> list[Array | None]:
        held = [saved.get() for saved in kept]
        gb = new(shape, dtype, "linalg_lu_solve")
        if not wanted[0]:
            del held
            return [None, gb]
        product = new(shape, dtype, "bmm")
        gemm(prod(batch) * k**3)
        ga = new(shape, dtype, "neg")
        del product, held
        return [ga, gb]

    return record(out, (a, b), backward)


def qr(x: Tensor) -> Tensor:
    """Q of torch.linalg.qr, whose R nobody uses: an orthonormal basis of a matrix (m, n), m >= n, laid out by columns.

    Allocates: Q, R. Saves: both. Backward allocates: a product (n, n), its negative, its triangle and the sum with
    the transpose; Q times this and the sum with the gradient; the solution, laid out by columns.
    """
    m, n = x.shape
    dtype = x.dtype
    q, r = _by_columns(m, n, dtype, "linalg_qr"), _by_columns(n, n, dtype, "linalg_qr")
    kept = [save(q), save(r)] if wants(x) else []
    del r

    def backward(g: Array) -> list[Array]:
        held = [saved.get() for saved in kept]
        product = new((n, n), dtype, "mm")
        gemm(m * n * n)
        negative = new((n, n), dtype, "neg")
        del product
        triangle = new((n, n), dtype, "triu")
        both = new((n, n), dtype, "add")
        product = new((m, n), dtype, "mm")
        gemm(m * n * n)
        del negative, triangle, both
        total = new((m, n), dtype, "add")
        del product
        solution = _by_columns(m, n, dtype, "linalg_solve_triangular")
        del held, total
        return [solution]

    return record(q, (x,), backward)


def _by_columns(rows: int, columns: int, dtype: str, op: str) -> Array:
    block = new((columns, rows), dtype, op)
    return Array(block.storage, (rows, columns), (1, rows), dtype)


def block_diagonal(x: Tensor) -> Tensor:
    """The blocks (n, k, k) along the diagonal of one matrix, elsewhere zeros.

    Allocates: the output. Saves: nothing. Backward allocates: the blocks' gradients, stacked.
    Source: PyTorch 2.13, aten/src/ATen/native/TensorShape.cpp, block_diag, over torch.unbind.
    """
    n, k, _ = x.shape
    shape = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(shape, g.dtype, "stack")]

    return record(new((n * k, n * k), x.dtype, "block_diag"), (x,), backward)
