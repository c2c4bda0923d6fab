"""Products that torch.einsum writes as one batched matrix product.

Source: PyTorch 2.13, aten/src/ATen/native/Linear.cpp, einsum and sumproduct_pair.
"""

from math import prod

from memcalc.tape.ops.arranging import permute
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.views import reshape, view
from memcalc.tape.tape import Tensor


def weighted(weights: Tensor, x: Tensor) -> Tensor:
    """einsum("e,eio->io"): a weighted sum over the first dim, of more than one entry.

    Shapes: (e,) with (e, i, o) -> (i, o).
    """
    count, rows, columns = x.shape
    left, right = view(weights, (1, 1, count)), view(x, (1, count, rows * columns))
    return view(bmm(left, right), (rows, columns))


def by_block(x: Tensor, blocks: Tensor) -> Tensor:
    """einsum("...rk,rkc->...rc"): each of r pieces of the last dims times a matrix of its own.

    Shapes: (..., r, k) with (r, k, c) -> (..., r, c), a view whose first dim in memory is r.
    """
    *leading, r, k = x.shape
    c = blocks.shape[2]
    rank = len(leading)
    left = reshape(permute(x, (rank, *range(rank), rank + 1)), (r, prod(leading), k))
    product = view(bmm(left, blocks), (r, *leading, c))
    return permute(product, (*range(1, rank + 1), 0, rank + 1))
