"""Fused attention kernels: q, k, v (b, heads, s, d) -> (b, heads, s, d).

What each keeps for backward and allocates inside is in kernels/, for both tiers.
Source of the saved tensors: PyTorch 2.13, tools/autograd/derivatives.yaml, _scaled_dot_product_*_attention; of
what happens around the kernels: aten/src/ATen/native/transformers/attention.cpp, scaled_dot_product_attention.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Protocol

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch
from memcalc.tape.layouts import Shape, is_contiguous
from memcalc.tape.ops.views import narrow, pad_last
from memcalc.tape.tape import Array, Saved, Storage, Tensor, like, new, products, record, save, scratch, wants

# Matrix products of a kernel, each of (s, d) and (d, keys) or the like. Half of their numbers are masked: how many of
# these a kernel passes over is its own affair. PyTorch 2.13, torch/utils/flop_counter.py, sdpa_flop_count,
# sdpa_backward_flop_count
FORWARD, BACKWARD = 2, 5


class Chooser(Protocol):
    """What decides sdpa's kernel beside the tensors themselves."""

    @property
    def gpu(self) -> Gpu: ...
    @property
    def pinned(self) -> str | None: ...
    @property
    def dropout(self) -> float: ...
    @property
    def training(self) -> bool: ...


def kernel_for(run: Chooser, q: Tensor, k: Tensor, *, masked: bool, training: bool, gqa: bool = True) -> str:
    """The kernel that CUDA would take: flash, efficient, cudnn or math."""
    return kernels.sdpa_kernel(
        run.gpu,
        dtype=q.dtype,
        training=training,
        q_len=q.shape[2],
        k_len=k.shape[2],
        head_dim=q.shape[3],
        heads=q.shape[1],
        kv_heads=k.shape[1],
        masked=masked,
        causal=not masked and q.shape[2] > 1,
        pinned=run.pinned,
        gqa=gqa,
    )


def flash(run: Chooser, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own flash kernel; k and v may have fewer heads.

    A head dimension that is no multiple of 8 is padded before and sliced after.
    Allocates: out in q's layout, logsumexp fp32 (b, heads, s), two seeds.
    Saves: q, k, v, out, logsumexp, seeds. Backward allocates: the gradients, each in its input's layout.
    """
    d = q.shape[3]
    width = kernels.flash_padded_head_dim(d)
    if width == d:
        return _flash(run, q, k, v)
    padded = [pad_last(x, width) for x in (q, k, v)]
    return narrow(_flash(run, *padded), 3, d)


def _flash(run: Chooser, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, heads, s, d = q.shape
    inputs, rate = (q, k, v), run.dropout if run.training else 0.0
    kept = _save_inputs(inputs)
    out = like(q.data, "flash_attention")
    lse = new(kernels.flash_lse_shape(b, heads, s), "fp32", "flash_attention")
    seeds = [_raw(nbytes, "flash_attention") for nbytes in kernels.flash_seed_bytes(dropout=rate > 0)]
    parts = kernels.flash_forward_scratch(
        run.gpu, batch=b, q_len=s, k_len=k.shape[2], heads=heads, head_dim=d, dropout=rate
    )
    scratch(parts.after, "flash_attention")
    _save_results(kept, [out, lse, *seeds])
    kv_heads, k_len, dtype, out_copied = k.shape[1], k.shape[2], q.dtype, not heads_inside(out)

    def inner(g: Array) -> Scratch:
        return kernels.flash_backward_scratch(
            batch=b,
            q_len=s,
            k_len=k_len,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=d,
            dtype=dtype,
            grad_copied=not heads_inside(g),
            out_copied=out_copied,
        )

    return _record(out, inputs, kept, inner, "flash_attention_backward", like)


def efficient(run: Chooser, q: Tensor, k: Tensor, v: Tensor, mask: Array | None) -> Tensor:
    """The memory-efficient kernel; a boolean mask becomes an additive one first, in every layer.

    Allocates: out laid out as (b, s, heads, d), logsumexp fp32 of 32-aligned length, two seeds.
    Saves: q, k, v, the additive mask, out, logsumexp, seeds. Backward allocates: gradients as (b, s, heads, d).
    """
    b, heads, s, d = q.shape
    inputs, masked = (q, k, v), mask is not None
    bias = None if mask is None else _aligned(additive_mask(mask, q.dtype))
    kept = _save_inputs(inputs)
    if kept and bias is not None:
        kept.append(save(bias))
    out = _by_position(q.shape, q.dtype, "efficient_attention")
    lse_shape = kernels.efficient_lse_shape(b, heads, s, training=bool(kept))
    results = [out] + ([new(lse_shape, "fp32", "efficient_attention")] if lse_shape[-1] else [])
    results += [_raw(nbytes, "efficient_attention") for nbytes in kernels.efficient_seed_bytes()]
    parts = kernels.efficient_forward_scratch(batch=b, q_len=s, heads=heads, head_dim=d, dtype=q.dtype)
    scratch(parts.after, "efficient_attention")
    _save_results(kept, results)
    gpu, k_len, dtype = run.gpu, k.shape[2], q.dtype

    def inner(g: Array) -> Scratch:
        return kernels.efficient_backward_scratch(
            gpu,
            batch=b,
            q_len=s,
            k_len=k_len,
            heads=heads,
            head_dim=d,
            dtype=dtype,
            masked=masked,
            grad_copied=not heads_inside(g),
        )

    del bias, results
    return _record(out, inputs, kept, inner, "efficient_attention_backward", _by_position_like)


def cudnn(q: Tensor, k: Tensor, v: Tensor, mask: Array | None) -> Tensor:
    """cuDNN's kernel, the first choice on compute capability 9 and 10.

    Allocates: out in q's layout, logsumexp fp32 (b, heads, s, 1), two seeds. Saves: q, k, v, the additive mask,
    out, logsumexp, seeds. Backward allocates: the gradients like their inputs, and fp32 scratch.
    """
    b, heads, s, d = q.shape
    inputs = (q, k, v)
    bias = None if mask is None else additive_mask(mask, q.dtype)
    kept = _save_inputs(inputs)
    if kept and bias is not None:
        kept.append(save(bias))
    results = [like(q.data, "cudnn_attention")]
    if kept:
        results.append(new(kernels.cudnn_lse_shape(b, heads, s), "fp32", "cudnn_attention"))
    results += [_raw(nbytes, "cudnn_attention") for nbytes in kernels.cudnn_seed_bytes()]
    _save_results(kept, results)

    def inner(g: Array) -> Scratch:
        return kernels.cudnn_backward_scratch(batch=b, q_len=s, heads=heads, head_dim=d)

    return _record(results[0], inputs, kept, inner, "cudnn_attention_backward", like)


def flash_library(run: Chooser, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The flash-attn library on q, k, v (b, s, heads, d), k and v with fewer heads at will.

    A head dimension that is no multiple of 8 is padded inside. Allocates: out like q, logsumexp fp32 (b, heads, s),
    rng_state int64 (2). Saves: q, k, v, out, logsumexp, rng_state. Backward allocates: the gradients, its scratch.
    Source: flash-attn 2, flash_attn_interface.py, FlashAttnFunc; csrc/flash_attn/flash_api.cpp.
    """
    b, s, heads, d = q.shape
    inputs, rate = (q, k, v), run.dropout if run.training else 0.0
    padded = [widened(x.data) for x in inputs]
    out = like(padded[0], "flash_attn")
    lse, seed = new((b, heads, s), "fp32", "flash_attn"), new((2,), "int64", "flash_attn")
    k_len, kv_heads, dtype, width = k.shape[1], k.shape[2], q.dtype, padded[0].shape[3]
    parts = kernels.flash_forward_scratch(
        run.gpu, batch=b, q_len=s, k_len=k_len, heads=heads, head_dim=width, dropout=rate
    )
    scratch(parts.after, "flash_attn")
    kept = [save(x) for x in (*padded, out, lse, seed)] if any(wants(x) for x in inputs) else []
    size = b * heads * s * k_len * width
    del padded, lse, seed

    products(FORWARD * size)

    def backward(g: Array) -> list[Array]:
        products(BACKWARD * size)
        held = [saved.get() for saved in kept]
        grad = widened(g)
        blocks = kernels.flash_library_backward_scratch(
            batch=b, q_len=s, k_len=k_len, heads=heads, kv_heads=kv_heads, head_dim=width, dtype=dtype
        )
        before = scratch(blocks.before, "flash_attn_backward")
        gradients = [like(x, "flash_attn_backward") for x in held[:3]]
        after = scratch(blocks.after, "flash_attn_backward")
        del before, after
        return [cut(gradient, d) for gradient in gradients]

    return record(cut(out, d), inputs, backward, python=True)


def widened(x: Array) -> Array:
    """x with its last dim padded to what the kernel takes: a copy, or x itself."""
    width = kernels.flash_padded_head_dim(x.shape[-1])
    return x if width == x.shape[-1] else new((*x.shape[:-1], width), x.dtype, "pad")


def cut(x: Array, d: int) -> Array:
    """The first d entries of the last dim."""
    return x.view((*x.shape[:-1], d), x.strides)


def heads_inside(x: Array) -> bool:
    """Whether (b, heads, s, d) lies in memory as (b, s, heads, d), as the kernels want it."""
    b, heads, s, d = x.shape
    return is_contiguous((b, s, heads, d), (x.strides[0], x.strides[2], x.strides[1], x.strides[3]))


def additive_mask(mask: Array, dtype: str) -> Array:
    """A boolean mask as one that is added to the scores (convert_boolean_attn_mask); any other is one already."""
    if mask.dtype != "bool":
        return mask
    kept = new((), dtype, "scalar_tensor")
    masked = new((), dtype, "scalar_tensor")
    out = new(mask.shape, dtype, "where")
    del kept, masked
    return out


def _aligned(bias: Array) -> Array:
    """A mask whose rows do not start at multiples of 8 elements, padded and sliced (preprocess_mask)."""
    width = bias.shape[-1]
    if all(stride % 8 == 0 for stride in bias.strides[:-1]):
        return bias
    padded = new((*bias.shape[:-1], kernels.efficient_mask_width(width)), bias.dtype, "pad")
    return padded.view(bias.shape, padded.strides)


def _save_inputs(inputs: Sequence[Tensor]) -> list[Saved]:
    return [save(x.data) for x in inputs] if any(wants(x) for x in inputs) else []


def _save_results(kept: list[Saved], results: Sequence[Array]) -> None:
    if kept:
        kept += [save(x) for x in results]


def _record(
    out: Array,
    inputs: Sequence[Tensor],
    kept: list[Saved],
    inner: Callable[[Array], Scratch],
    op: str,
    laid_out: Callable[[Array, str], Array],
) -> Tensor:
    size = prod(inputs[0].shape) * inputs[1].shape[2]
    products(FORWARD * size)

    def backward(g: Array) -> list[Array]:
        products(BACKWARD * size)
        held = [saved.get() for saved in kept]
        blocks = inner(g)
        before = scratch(blocks.before, op)
        gradients = [laid_out(x, op) for x in held[:3]]
        after = scratch(blocks.after, op)
        del held, before, after
        return gradients

    return record(out, inputs, backward)


def _by_position(shape: Shape, dtype: str, op: str) -> Array:
    """A block of shape (b, heads, s, d) that lies in memory as (b, s, heads, d)."""
    b, heads, s, d = shape
    block = new((b, s, heads, d), dtype, op)
    strides = block.strides
    return Array(block.storage, shape, (strides[0], strides[2], strides[1], strides[3]), dtype)


def _by_position_like(x: Array, op: str) -> Array:
    return _by_position(x.shape, x.dtype, op)


def _raw(nbytes: int, op: str) -> Array:
    return Array(Storage(nbytes, op), (nbytes,), (1,), "uint8")
