"""Matrix products. cuBLAS works in a workspace of its own, one per thread.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml (mm, addmm, bmm, baddbmm).
"""

from math import prod

from memcalc.formats import ITEMSIZE
from memcalc.kernels import bmm_scratch, check_dtypes
from memcalc.kernels.products import Layout
from memcalc.tape.autocast import lower
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.views import reshape, reshape_array, swap, transpose, unsafe_view, view
from memcalc.tape.tape import Array, Saved, Tensor, gemm, new, record, save, scratch, wants


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T (+ bias), as torch.nn.functional.linear.

    Shapes: (..., d_in) with W (d_out, d_in) -> (..., d_out). Under autocast x, w, bias are cast in this order.
    Without a bias: t, view, mm, view; with one: view, addmm, view.
    """
    x_low, w_low = lower(x), lower(w)  # new names: the caller's call keeps x itself alive
    if bias is None:
        return _mm(x_low, transpose(w_low, 0, 1))
    bias_low = lower(bias)  # before x is flattened: backward, its cast runs last
    out = _addmm(_flattened(x_low), transpose(w_low, 0, 1), bias_low)
    return view(out, (*x.shape[:-1], w.shape[0])) if len(x.shape) != 2 else out


def conv1d(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """x W + bias, as transformers' Conv1D: view, addmm, view. Shapes: (..., d_in) with W (d_in, d_out) -> (..., d_out).

    Under autocast bias, x, w are cast in this order. Saves: as `linear`.
    Source: transformers 5.24.0, pytorch_utils.py, Conv1D.
    """
    flat = _flattened(x)
    bias_low, flat_low, w_low = lower(bias), lower(flat), lower(w)
    kept_w = save(w_low.data) if wants(flat_low) else None
    kept_x = save(flat_low.data) if wants(w_low) else None
    out = new((flat.shape[0], w.shape[1]), flat_low.dtype, "addmm")
    size = flat.shape[0] * prod(w.shape)
    gemm(size)
    shape, weight_shape = flat.shape, w.shape

    def backward(g: Array) -> list[Array | None]:
        held = _unpacked(kept_w, kept_x)
        gx = _product(shape, g.dtype, size) if kept_w else None
        gw = _product(weight_shape, g.dtype, size) if kept_x else None
        del held
        return [g, gx, gw]

    product = record(out, (bias_low, flat_low, w_low), backward)
    return view(product, (*x.shape[:-1], w.shape[1]))


def linear_by_hand(x: Tensor, w: Tensor) -> Tensor:
    """x @ W.T. Autocast casts the transpose, which is no leaf: the copy is not cached."""
    turned = transpose(w, 0, 1)
    x_low = lower(x)
    return _mm(x_low, lower(turned))


def _flattened(x: Tensor) -> Tensor:
    """(..., d) as (rows, d)."""
    rows = prod(x.shape[:-1])
    if len(x.shape) == 2:
        return x
    before = x.shape

    def backward(g: Array) -> list[Array]:
        return [reshape_array(g, before)]

    return record(reshape_array(x.data, (rows, before[-1])), (x,), backward)


def _mm(x: Tensor, turned: Tensor) -> Tensor:
    """x W^T of (..., d_in) and (d_in, d_out). Saves: W^T if x needs a gradient, the flattened x if W does.

    Backward allocates: W's gradient first, then x's, seen through a view where x was flattened.
    """
    (d_in, d_out), rows, flattened = turned.shape, prod(x.shape[:-1]), len(x.shape) != 2
    flat = reshape_array(x.data, (rows, d_in)) if flattened else x.data
    kept_w = save(turned.data) if wants(x) else None
    kept_x = save(flat) if wants(turned) else None
    out = new((rows, d_out), x.dtype, "mm")
    size = rows * d_in * d_out
    gemm(size)
    shape, layout = x.shape, (turned.shape, turned.data.strides)

    def backward(g: Array) -> list[Array | None]:
        held = _unpacked(kept_w, kept_x)
        gw = _product_like(*layout, g.dtype, size) if kept_x else None
        gx = _product((rows, d_in), g.dtype, size) if kept_w else None
        del held
        return [reshape_array(gx, shape) if gx and flattened else gx, gw]

    product = record(out, (x, turned), backward)
    return unsafe_view(product, (*shape[:-1], d_out)) if flattened else product


def _addmm(x: Tensor, turned: Tensor, bias: Tensor) -> Tensor:
    """bias + x W^T on matrices. Saves: as `_mm`. Backward allocates: x's gradient, W's, and the bias's sum last."""
    kept_x = save(x.data) if wants(turned) else None
    kept_w = save(turned.data) if wants(x) else None
    out = new((x.shape[0], turned.shape[1]), x.dtype, "addmm")
    size = x.shape[0] * prod(turned.shape)
    gemm(size)
    shape, layout = x.shape, (turned.shape, turned.data.strides)

    def backward(g: Array) -> list[Array | None]:
        held = _unpacked(kept_w, kept_x)
        gx = _product(shape, g.dtype, size) if kept_w else None
        gw = _product_like(*layout, g.dtype, size) if kept_x else None
        del held
        return [g, gx, gw]

    return record(out, (bias, x, turned), backward)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """x @ y of (..., p) and a trained (p, q): folded, mm, unfolded. Under autocast x, y are cast in this order.

    Source: PyTorch 2.13, aten/src/ATen/native/LinearAlgebra.cpp, should_fold.
    """
    x_low, y_low = lower(x), lower(y)
    if len(x.shape) == 2:
        return mm(x_low, y_low)
    folded = reshape(x_low, (prod(x.shape[:-1]), x.shape[-1]))
    return unsafe_view(mm(folded, y_low), (*x.shape[:-1], y.shape[1]))


def mm(x: Tensor, y: Tensor) -> Tensor:
    """The product of two matrices (n, p), (p, q) -> (n, q).

    Saves: the other factor. Backward allocates: the second factor's gradient first, then the first's; that of a factor
    laid out by columns is laid out so too, and seen through a view.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, mm_mat1_grad, mm_mat2_grad.
    """
    x_low, y_low = lower(x), lower(y)
    kept_y = save(y_low.data) if wants(x_low) else None
    kept_x = save(x_low.data) if wants(y_low) else None
    out = new((x.shape[0], y.shape[1]), x_low.dtype, "mm")
    size = x.shape[0] * prod(y.shape)
    gemm(size)
    layouts = [(factor.shape, factor.data.strides) for factor in (x_low, y_low)]

    def backward(g: Array) -> list[Array | None]:
        held = _unpacked(kept_y, kept_x)
        gy = _product_like(*layouts[1], g.dtype, size) if kept_x else None
        gx = _product_like(*layouts[0], g.dtype, size) if kept_y else None
        del held
        return [gx, gy]

    return record(out, (x_low, y_low), backward)


def _product_like(shape: Shape, strides: Shape, dtype: str, multiply_adds: int) -> Array:
    """A gradient by one GEMM, by columns where its factor is."""
    rows, columns = shape
    if strides == (1, rows):
        return swap(_product((columns, rows), dtype, multiply_adds), 0, 1)
    return _product(shape, dtype, multiply_adds)


def bmm(x: Tensor, y: Tensor) -> Tensor:
    """Batched product of (n, p, q) and (n, q, r).

    Saves: the other factor. Backward allocates: the second factor's gradient first, then the first's.
    """
    x, y = lower(x), lower(y)
    kept_y = save(y.data) if wants(x) else None
    kept_x = save(x.data) if wants(y) else None
    out = _batched(x.data, y.data, "bmm")

    def backward(g: Array) -> list[Array | None]:
        y_data, x_data = (saved.get() if saved else None for saved in (kept_y, kept_x))
        gy = _batched(swap(x_data, 1, 2), g) if x_data else None
        gx = _batched(g, swap(y_data, 1, 2)) if y_data else None
        return [gx, gy]

    return record(out, (x, y), backward)


def baddbmm(base: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """beta * base + alpha * (x y); base is broadcast to the product's shape.

    Backward allocates: x's gradient and its scaling by alpha, then y's.
    """
    base, x, y = lower(base), lower(x), lower(y)
    check_dtypes("baddbmm", base.dtype, x.dtype, y.dtype)
    kept_x = save(x.data) if wants(y) else None
    kept_y = save(y.data) if wants(x) else None
    out = _batched(x.data, y.data, "baddbmm")

    def backward(g: Array) -> list[Array | None]:
        y_data, x_data = (saved.get() if saved else None for saved in (kept_y, kept_x))
        gx = _scaled(_batched(g, swap(y_data, 1, 2))) if y_data else None
        gy = _scaled(_batched(swap(x_data, 1, 2), g)) if x_data else None
        return [gx, gy, g]

    return record(out, (x, y, base), backward)


def _batched(x: Array, y: Array, op: str = "mm") -> Array:
    """The product of matrices by batch. Allocates: the output, and copies of factors that cuBLAS cannot read."""
    return batched((x.shape, x.strides), (y.shape, y.strides), x.dtype, op)


def batched(left: Layout, right: Layout, dtype: str, op: str) -> Array:
    """The same of factors by shape and strides: (n, p, q) and (n, q, r)."""
    (n, p, q), (_, _, r) = left[0], right[0]
    out = new((n, p, r), dtype, op)
    gemm(n * p * q * r)
    scratch(bmm_scratch(left, right, ITEMSIZE[dtype]).after, op)
    return out


def _unpacked(*saved: Saved | None) -> list[Array]:
    """A node unpacks all that it saved before it computes, and holds it until it returns."""
    return [one.get() for one in saved if one is not None]


def _product(shape: tuple[int, ...], dtype: str, multiply_adds: int) -> Array:
    """A gradient by one GEMM."""
    out = new(shape, dtype, "mm")
    gemm(multiply_adds)
    return out


def _scaled(array: Array) -> Array:
    return new(array.shape, array.dtype, "mul")
