"""The flash-attn library over padded rows: tokens leave their rows, lie end to end, and come back.

Source: transformers 5.24.0, modeling_flash_attention_utils.py (_upad_input, _get_unpad_data, _index_first_axis);
flash-attn 2, bert_padding.py (pad_input), flash_attn_interface.py (FlashAttnVarlenFunc).
"""

from math import prod

from memcalc import kernels
from memcalc.tape.ops.attention import BACKWARD, FORWARD, Chooser, cut, widened
from memcalc.tape.ops.views import indexed, reshape, view
from memcalc.tape.tape import Array, Tensor, like, new, products, record, save, scratch, wants


def flash_over_padding(run: Chooser, q: Tensor, k: Tensor, v: Tensor, mask: Array) -> Tensor:
    """q, k, v (b, s, heads, d), k and v with fewer heads at will; mask (b, s) with one zero -> (b, s, heads, d)."""
    b, s = mask.shape
    indices, bounds = _where(mask)
    k, v, q = _tokens(k, indices), _tokens(v, indices), _tokens(q, indices)
    return view(_placed(_attention(run, q, k, v, bounds), indices, b * s), (b, s, *q.shape[1:]))


def _where(mask: Array) -> tuple[Array, Array]:
    """Where tokens stand (tokens,), and the sequences' bounds (b + 1,)."""
    b, s = mask.shape
    lengths = new((b,), "int32", "sum")
    indices = new((b * s - 1,), "int64", "nonzero")
    longest = new((), "int32", "max")
    del longest
    summed = new((b,), "int32", "cumsum")
    bounds = new((b + 1,), "int32", "pad")
    del summed, lengths
    return indices, bounds


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


def _attention(run: Chooser, q: Tensor, k: Tensor, v: Tensor, bounds: Array) -> Tensor:
    """flash_attn_varlen_func: (tokens, heads, d), sequences end to end.

    Allocates: out like q, logsumexp fp32 (heads, tokens), rng_state int64 (2). Saves: q, k, v, out, logsumexp, bounds,
    rng_state. Backward allocates: the gradients, its scratch.
    """
    tokens, heads, d = q.shape
    inputs = (q, k, v)
    wide = [widened(x.data) for x in inputs]
    out = like(wide[0], "flash_attn_varlen")
    lse, seed = new((heads, tokens), "fp32", "flash_attn_varlen"), new((2,), "int64", "flash_attn_varlen")
    kv_heads, dtype, width = k.shape[1], q.dtype, wide[0].shape[-1]
    kept = [save(x) for x in (*wide, out, lse, bounds, seed)] if any(wants(x) for x in inputs) else []
    sequences = bounds.shape[0] - 1
    longest = -(-tokens // sequences)  # all but the last one, which is a token shorter
    size = heads * width * ((sequences - 1) * longest**2 + (tokens - (sequences - 1) * longest) ** 2)
    products(FORWARD * size)
    del wide, lse, seed

    def backward(g: Array) -> list[Array]:
        products(BACKWARD * size)
        held = [saved.get() for saved in kept]
        grad = widened(g)
        blocks = kernels.flash_varlen_backward_scratch(
            batch=sequences, total_q=tokens, total_k=tokens, heads=heads, kv_heads=kv_heads, head_dim=width, dtype=dtype
        )
        gradients = [like(x, "flash_attn_varlen_backward") for x in held[:3]]
        after = scratch(blocks.after, "flash_attn_varlen_backward")
        del after, held, grad
        return [cut(gradient, d) for gradient in gradients]

    return record(cut(out, d), inputs, backward, python=True)
