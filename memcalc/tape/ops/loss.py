"""Lookup, softmax and the cross-entropy's parts.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml.
"""

from math import prod

from memcalc.formats import HALF, ITEMSIZE
from memcalc.kernels import embedding_backward_scratch, safe_softmax_scratch, softmax_backward_scratch
from memcalc.tape.autocast import upper
from memcalc.tape.layouts import is_contiguous
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.tape import Array, Tensor, like, new, record, save, scratch, tape, wants


def embedding(ids: Array, w: Tensor) -> Tensor:
    """Rows of w. Shapes: (b, s) -> (b, s, hidden). Saves: the ids. Backward allocates: w's gradient, dense.

    Above 3,072 tokens the kernel sorts them and sums in parts, in blocks of its own (kernels/reductions.py).
    """
    kept = save(ids) if wants(w) else None
    shape, tokens = w.shape, prod(ids.shape)

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        inner = embedding_backward_scratch(
            tokens=tokens,
            rows=shape[0],
            width=shape[1],
            dtype=g.dtype,
            grad_copied=not is_contiguous(g.shape, g.strides),
        )
        before = scratch(inner.before, "embedding_dense_backward")
        gradient = new(shape, g.dtype, "embedding_dense_backward")
        after = scratch(inner.after, "embedding_dense_backward")
        del held, before, after
        return [gradient]

    return record(new((*ids.shape, shape[1]), w.dtype, "embedding"), (w,), backward)


def softmax_fp32(x: Tensor) -> Tensor:
    """softmax(x, dtype=float32) over the last dim.

    CUDA fuses the cast of fp16 (not of bf16) into the kernel.
    Saves: the result. Backward allocates: the gradient, and a product that lives inside the kernel.
    Source: PyTorch 2.13, aten/src/ATen/native/SoftMax.cpp (softmax.int), cuda/SoftMax.cu (softmax_backward_cuda_out).
    """
    return _softmax(x if x.dtype == "fp16" else cast(x, "fp32"), "fp32")


def _softmax(x: Tensor, dtype: str) -> Tensor:
    before = x.dtype
    out = like(x.data, "softmax", dtype)
    kept = save(out) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        result = kept.get()
        gradient = like(result, "softmax_backward", before)
        inner = softmax_backward_scratch(nbytes_of(result))
        scratch((*inner.before, *inner.after), "softmax_backward")
        return [gradient]

    return record(out, (x,), backward)


def softmax(x: Tensor) -> Tensor:
    """softmax over the last dim in x's own dtype; in fp32 under autocast. Saves and backward: as `softmax_fp32`."""
    return softmax_fp32(x) if tape.autocast is not None and x.dtype in HALF else _softmax(x, x.dtype)


def softmax_to(x: Tensor, dtype: str) -> Tensor:
    """softmax over the last dim with its dtype named: x is cast first, unless the kernel casts."""
    return softmax_fp32(x) if dtype == "fp32" and x.dtype != "fp32" else _softmax(cast(x, dtype), dtype)


def safe_softmax(x: Tensor) -> Tensor:
    """_safe_softmax over the last dim: rows that are masked wholly become zeros.

    Allocates: the output; inside, before it, a plain softmax, a mask of infinities, its rows and two scalars.
    Saves: the result. Backward: softmax's.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp, _safe_softmax.
    """
    inner = safe_softmax_scratch(prod(x.shape[:-1]), x.shape[-1], x.dtype)
    held = scratch(inner.before, "safe_softmax")
    out = like(x.data, "safe_softmax")
    del held
    kept = save(out) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        result = kept.get()
        gradient = like(result, "softmax_backward")
        product = softmax_backward_scratch(nbytes_of(result))
        scratch((*product.before, *product.after), "softmax_backward")
        return [gradient]

    return record(out, (x,), backward)


def log_softmax(x: Tensor) -> Tensor:
    """log_softmax over the last dim in x's own dtype. Saves: the result. Backward allocates: one block."""
    out = like(x.data, "log_softmax")
    kept = save(out) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        result = kept.get()
        gradient = like(result, "log_softmax_backward")
        del result
        return [gradient]

    return record(out, (x,), backward)


def nll_loss(x: Tensor, labels: Array) -> Tensor:
    """Negative log-likelihood, reduced to a scalar.

    Allocates: loss and total weight. Saves: log-probabilities, labels, total weight.
    Backward allocates: a block of the logits' size. Autocast computes it in fp32.
    """
    x = upper(x)
    kept = (save(x.data), save(labels)) if wants(x) else None
    out = new((), x.dtype, "nll_loss")
    total = new((), x.dtype, "nll_loss")
    kept_total = save(total) if kept else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        assert kept_total is not None
        held = (kept[0].get(), kept[1].get(), kept_total.get())
        gradient = like(held[0], "nll_loss_backward")
        del held
        return [gradient]

    return record(out, (x,), backward)


def nll_losses(x: Tensor, labels: Array) -> Tensor:
    """Negative log-likelihood of each row: (n, classes), (n,) -> (n,).

    Allocates: losses and a total weight. Saves: log-probabilities, labels, that weight. Backward allocates: a block of
    the logits' size. Autocast computes it in fp32.
    """
    x = upper(x)
    kept = [save(x.data), save(labels)] if wants(x) else []
    out, weight = new(labels.shape, x.dtype, "nll_loss"), new((), x.dtype, "nll_loss")
    if kept:
        kept.append(save(weight))

    def backward(g: Array) -> list[Array]:
        held = [saved.get() for saved in kept]
        gradient = like(held[0], "nll_loss_backward")
        del held
        return [gradient]

    return record(out, (x,), backward)


def nbytes_of(array: Array) -> int:
    """Bytes of an array's elements."""
    return prod(array.shape) * ITEMSIZE[array.dtype]
