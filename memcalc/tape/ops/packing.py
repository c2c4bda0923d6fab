"""The flash-attn library over padded rows: tokens leave their rows, lie end to end, and come back.

Source: transformers 5.24.0, modeling_flash_attention_utils.py (_upad_input, _get_unpad_data, _index_first_axis);
flash-attn 2, bert_padding.py (pad_input), flash_attn_interface.py (FlashAttnVarlenFunc).
"""

from math import prod

from memcalc import kernels
from memcalc.tape.layouts import is_contiguous
from memcalc.tape.ops.attention import BACKWARD, FORWARD, Chooser, cut, widened
from memcalc.tape.ops.views import indexed, reshape, reshape_array, view
from memcalc.tape.tape import Array, Tensor, like, new, products, record, save, scratch, wants


def flash_over_padding(run: Chooser, q: Tensor, k: Tensor, v: Tensor, mask: Array, zeros: int = 1) -> Tensor:
    """q (b, s, heads, d), k and v (b, keys, kv_heads, d), mask (b, keys) with one zero, the last, or none -> q's shape.

    Keys that came before have no queries.
    """
    b, s = q.shape[:2]
    (q, k, v), indices, bounds = _packed(q, k, v, mask, zeros)
    return view(_placed(_attention(run, q, k, v, bounds), indices, b * s), (b, s, *q.shape[1:]))


def _packed(
    q: Tensor, k: Tensor, v: Tensor, mask: Array, zeros: int
) -> tuple[list[Tensor], Array, tuple[Array, Array]]:
    """_upad_input: q, k, v as (tokens, heads, d), where queries stand, the bounds of queries and of keys."""
    indices, bounds = _where(mask, zeros)
    k, v = _tokens(k, indices), _tokens(v, indices)
    b, s = q.shape[:2]
    if s == mask.shape[1]:
        return [_tokens(q, indices), k, v], indices, (bounds, bounds)
    if s == 1:
        q_bounds = new((b + 1,), "int32", "arange")
        return [reshape(q, (b, *q.shape[2:])), k, v], q_bounds.view((b,), (1,)), (q_bounds, bounds)
    q, q_indices, q_bounds, _used = _unpadded(q)
    return [q, k, v], q_indices, (q_bounds, bounds)


def _where(mask: Array, zeros: int) -> tuple[Array, Array]:
    """Where tokens stand (tokens,), and the sequences' bounds (b + 1,)."""
    b, s = mask.shape
    lengths = new((b,), "int32", "sum")
    flat = mask if is_contiguous(mask.shape, mask.strides) else new(mask.shape, "bool", "clone")
    indices = new((b * s - zeros,), "int64", "nonzero")
    del flat
    bounds = _bounds(b)
    del lengths
    return indices, bounds


def _unpadded(q: Tensor) -> tuple[Tensor, Array, Array, Array]:
    """unpad_input over the mask's last columns: tokens, where they stand, the sequences' bounds, the lengths in use."""
    b, s = q.shape[:2]
    lengths, used = new((b,), "int32", "sum"), new((b,), "int32", "sum")
    columns = new((b, s), "bool", "clone") if b > 1 else None
    indices = new((b * s - 1,), "int64", "nonzero")
    del columns
    bounds = _bounds(b)
    tokens = _picked(reshape(q, (b * s, *q.shape[2:])), indices)
    del lengths
    return tokens, indices, bounds, used


def _bounds(b: int) -> Array:
    longest = new((), "int32", "max")
    del longest
    summed = new((b,), "int32", "cumsum")
    bounds = new((b + 1,), "int32", "pad")
    del summed
    return bounds


def _picked(x: Tensor, indices: Array) -> Tensor:
    """index_first_axis: the rows of (n, heads, d) at `indices`.

    Saves: indices. Backward allocates: zeros of x's shape, filled in place.
    """
    shape = x.shape
    kept = save(indices) if wants(x) else None
    flat = reshape_array(x.data, (shape[0], prod(shape[1:])))
    out = new((*indices.shape, *shape[1:]), x.dtype, "gather")
    del flat

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        flat = reshape_array(g, (g.shape[0], prod(shape[1:])))
        gradient = new(shape, g.dtype, "zeros")
        del held, flat
        return [gradient]

    return record(out, (x,), backward, python=True)


def _tokens(x: Tensor, indices: Array) -> Tensor:
    """(b, s, …) -> the rows of (b * s, …) at `indices`: a copy."""
    return indexed(reshape(x, (prod(x.shape[:2]), *x.shape[2:])), indices, 0)


def _placed(x: Tensor, indices: Array, rows: int) -> Tensor:
    """Tokens back in their places among zeros: (tokens, …) -> (rows, …).

    Saves: indices. Backward allocates: the tokens' gradient.
    """
    shape, dtype = x.shape, x.dtype
    kept = save(indices) if wants(x) else None
    out = new((rows, *shape[1:]), dtype, "zeros")

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = new(shape, dtype, "index")
        del held
        return [gradient]

    return record(out, (x,), backward, python=True)


def _attention(run: Chooser, q: Tensor, k: Tensor, v: Tensor, bounds: tuple[Array, Array]) -> Tensor:
    """flash_attn_varlen_func: (tokens, heads, d), sequences end to end.

    Allocates: out like q, logsumexp fp32 (heads, tokens), rng_state int64 (2). Saves: q, k, v, out, logsumexp, bounds,
    rng_state. Backward allocates: the gradients, its scratch.
    """
    tokens, heads, d = q.shape
    inputs = (q, k, v)
    wide = [widened(x.data) for x in inputs]
    out = like(wide[0], "flash_attn_varlen")
    lse, seed = new((heads, tokens), "fp32", "flash_attn_varlen"), new((2,), "int64", "flash_attn_varlen")
    keys, kv_heads, _ = k.shape
    dtype, width = q.dtype, wide[0].shape[-1]
    kept = [save(x) for x in (*wide, out, lse, *bounds, seed)] if any(wants(x) for x in inputs) else []
    sequences = bounds[0].shape[0] - 1
    longest = -(-tokens // sequences)  # all but the last one, which may be a token shorter
    last, past = tokens - (sequences - 1) * longest, (keys - tokens) // sequences
    size = heads * width * ((sequences - 1) * longest * (longest + past) + last * (last + past))
    products(FORWARD * size)
    del wide, lse, seed

    def backward(g: Array) -> list[Array]:
        products(BACKWARD * size)
        held = [saved.get() for saved in kept]
        grad = widened(g)
        blocks = kernels.flash_varlen_backward_scratch(
            batch=sequences, total_q=tokens, total_k=keys, heads=heads, kv_heads=kv_heads, head_dim=width, dtype=dtype
        )
        gradients = [like(x, "flash_attn_varlen_backward") for x in held[:3]]
        after = scratch(blocks.after, "flash_attn_varlen_backward")
        del after, held, grad
        return [cut(gradient, d) for gradient in gradients]

    return record(cut(out, d), inputs, backward, python=True)
