"""Matrix products. cuBLAS works in a workspace of its own, one per thread.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml (mm, addmm, bmm, baddbmm).
"""

from math import prod

from memcalc.tape.autocast import lower
from memcalc.tape.ops.views import reshape_array, unsafe_view
from memcalc.tape.tape import Array, Tensor, gemm, new, record, save, wants


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T (+ bias), as torch.nn.functional.linear.

    Shapes: (..., d_in) with W (d_out, d_in) -> (..., d_out). Under autocast x, w, bias are cast in this order.
    Without a bias: t, view, mm, view; with one: view, addmm, view.
    """
    x_low, w_low = lower(x), lower(w)  # new names: the caller's call keeps x itself alive
    if bias is None:
        return _mm(x_low, w_low)
    out = _addmm(_flattened(x_low), w_low, lower(bias))
    return unsafe_view(out, (*x.shape[:-1], w.shape[0])) if len(x.shape) != 2 else out


def _flattened(x: Tensor) -> Tensor:
    """(..., d) as (rows, d)."""
    rows = prod(x.shape[:-1])
    if len(x.shape) == 2:
        return x
    before = x.shape

    def backward(g: Array) -> list[Array]:
        return [reshape_array(g, before)]

    return record(reshape_array(x.data, (rows, before[-1])), (x,), backward)


def _mm(x: Tensor, w: Tensor) -> Tensor:
    """x W^T. Saves: W if x needs a gradient, the flattened x if W does.

    Backward allocates: W's gradient first, then x's; both are seen through views.
    """
    rows, d_in, d_out = prod(x.shape[:-1]), w.shape[1], w.shape[0]
    flat = x.data if len(x.shape) == 2 else reshape_array(x.data, (rows, d_in))
    kept_w = save(w.data) if wants(x) else None
    kept_x = save(flat) if wants(w) else None
    out = new((*x.shape[:-1], d_out), x.dtype, "mm")
    gemm()
    shape, weight_shape = x.shape, w.shape

    def backward(g: Array) -> list[Array | None]:
        flat_g = reshape_array(g, (rows, d_out))
        gw = gx = None
        if kept_x:
            gw = _product(weight_shape, flat_g, kept_x.get()).view(weight_shape, (d_in, 1))
        if kept_w:
            gx = reshape_array(_product((rows, d_in), flat_g, kept_w.get()), shape)
        return [gx, gw]

    return record(out, (x, w), backward)


def _addmm(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """bias + x W^T on matrices. Saves: as `_mm`. Backward allocates: x's gradient, W's, and the bias's sum last."""
    kept_w = save(w.data) if wants(x) else None
    kept_x = save(x.data) if wants(w) else None
    out = new((x.shape[0], w.shape[0]), x.dtype, "addmm")
    gemm()
    shape, weight_shape = x.shape, w.shape

    def backward(g: Array) -> list[Array | None]:
        gx = _product(shape, g, kept_w.get()) if kept_w else None
        gw = _product(weight_shape, g, kept_x.get()).view(weight_shape, (weight_shape[1], 1)) if kept_x else None
        return [gx, gw, g]

    return record(out, (x, w, bias), backward)


def bmm(x: Tensor, y: Tensor) -> Tensor:
    """Batched product of (n, p, q) and (n, q, r).

    Saves: the other factor. Backward allocates: the second factor's gradient first, then the first's.
    """
    x, y = lower(x), lower(y)
    kept_y = save(y.data) if wants(x) else None
    kept_x = save(x.data) if wants(y) else None
    n, p, q = x.shape
    r = y.shape[2]
    out = new((n, p, r), x.dtype, "bmm")
    gemm()

    def backward(g: Array) -> list[Array | None]:
        gy = _product((n, q, r), g, kept_x.get()) if kept_x else None
        gx = _product((n, p, q), g, kept_y.get()) if kept_y else None
        return [gx, gy]

    return record(out, (x, y), backward)


def baddbmm(base: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """beta * base + alpha * (x y); base is broadcast to the product's shape.

    Backward allocates: x's gradient and its scaling by alpha, then y's.
    """
    x, y = lower(x), lower(y)
    base = lower(base)
    kept_y = save(y.data) if wants(x) else None
    kept_x = save(x.data) if wants(y) else None
    n, p, q = x.shape
    r = y.shape[2]
    out = new((n, p, r), x.dtype, "baddbmm")
    gemm()

    def backward(g: Array) -> list[Array | None]:
        gx = _scaled(_product((n, p, q), g, kept_y.get())) if kept_y else None
        gy = _scaled(_product((n, q, r), g, kept_x.get())) if kept_x else None
        return [gx, gy, g]

    return record(out, (x, y, base), backward)


def _product(shape: tuple[int, ...], left: Array, right: Array) -> Array:
    """A gradient by one GEMM; both factors stay alive in the caller."""
    out = new(shape, left.dtype, "mm")
    gemm()
    return out


def _scaled(array: Array) -> Array:
    return new(array.shape, array.dtype, "mul")


