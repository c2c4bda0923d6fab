"""Products that torch.einsum writes as one batched matrix product.

Source: PyTorch 2.13, aten/src/ATen/native/Linear.cpp, einsum and sumproduct_pair.
"""

from math import prod
from string import ascii_uppercase

from memcalc.tape.autocast import lower
from memcalc.tape.ops.arranging import permute
from memcalc.tape.ops.elementwise import mul
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.views import reshape, view
from memcalc.tape.tape import Tensor


def contracted(x: Tensor, y: Tensor, equation: str) -> Tensor:
    """einsum over two tensors that sums over one letter, which both have: its letters come last.

    Letters of the answer that both have, or of which x has only a size of 1, go with y. Under autocast x, y are cast
    in this order.
    """
    x, y = lower(x), lower(y)
    inputs, out = equation.split("->")
    of_x, of_y = inputs.split(",")
    (summed,) = {*of_x, *of_y} - {*out}
    x, y = _aligned(x, of_x, out + summed), _aligned(y, of_y, out + summed)
    last, sizes = len(out), tuple(map(max, zip(x.shape, y.shape, strict=True)))
    if sizes[last] == 1:
        return view(mul(x, y), sizes[:last])
    both = [dim for dim in range(last) if x.shape[dim] != 1 and y.shape[dim] != 1]
    left = [dim for dim in range(last) if x.shape[dim] != 1 and dim not in both]
    right = [dim for dim in range(last) if dim not in both + left]
    order = (*both, *left, last, *right)
    batch, rows, columns = (prod(sizes[dim] for dim in dims) for dims in (both, left, right))
    one = reshape(permute(x, order), (batch, rows, sizes[last]))
    other = reshape(permute(y, (*both, last, *right, *left)), (batch, sizes[last], columns))
    product = view(bmm(one, other), tuple(1 if dim == last else sizes[dim] for dim in order))
    back = sorted(range(len(order)), key=order.__getitem__)
    return view(permute(product, tuple(back)), sizes[:last])


def _aligned(x: Tensor, letters: str, order: str) -> Tensor:
    """x with its dims in this order, of size 1 where it has none of that letter."""
    turned = permute(x, tuple(letters.index(letter) for letter in order if letter in letters))
    sizes = dict(zip(letters, x.shape, strict=True))
    return view(turned, tuple(sizes.get(letter, 1) for letter in order))


def by_block(x: Tensor, blocks: Tensor) -> Tensor:
    """einsum("...rk,rkc->...rc"): each of r pieces of the last dims times a matrix of its own.

    Shapes: (..., r, k) with (r, k, c) -> (..., r, c), a view whose first dim in memory is r.
    """
    leading = ascii_uppercase[: len(x.shape) - 2]
    return contracted(x, blocks, f"{leading}rk,rkc->{leading}rc")
