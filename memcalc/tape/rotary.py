"""Rotary position embeddings: cosine and sine by position, and queries and keys turned by them.

Source: transformers 5.24.0, models/llama/modeling_llama.py unless a function says otherwise.
"""

from typing import TYPE_CHECKING

from memcalc.tape.ops.elementwise import add, cast, mul, neg, scale
from memcalc.tape.ops.views import cat, every_second, narrow, stack, view
from memcalc.tape.tape import Array, Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


def rotary(
    m: "Builder", like_dtype: str, positions: Array, head_dim: int, kind: str = "", *, paired: bool = False
) -> tuple[Tensor, Tensor]:
    """LlamaRotaryEmbedding: cos and sin (1, s, head_dim) for positions (1, s).

    `kind` is in the buffers' names where there are several; `paired`: neighbours are turned, not halves.
    """
    inv_freq = m.parameter(f"{kind}inv_freq", (head_dim // 2,), "buffer", "fp32")
    m.parameter(f"{kind}original_inv_freq", (head_dim // 2,), "buffer", "fp32")
    s = positions.shape[-1]
    as_float = Tensor(new((1, s, 1), "fp32", "to"))
    freqs = mul(as_float, inv_freq)
    del as_float
    emb = _each_twice(freqs) if paired else cat(freqs, freqs, 2)
    cos = scale(_function(emb, "cos"))
    sin = scale(_function(emb, "sin"))
    return cast(cos, like_dtype), cast(sin, like_dtype)


def _function(x: Tensor, op: str) -> Tensor:
    """An element-wise function of a tensor that needs no gradient."""
    return Tensor(new(x.shape, x.dtype, op))


def longrope_frequencies(m: "Builder", dim: int) -> None:
    """The frequencies chosen anew from two sets, by the largest position; the longer set is made at the first call.

    Source: transformers 5.24.0, modeling_rope_utils.py, dynamic_rope_update, _compute_longrope_parameters.
    """
    length = _largest_position()
    name = f"{m.path}.long_inv_freq"
    if name not in m.made_once:
        m.made_once[name] = _longrope(dim // 2)
    longer = new((), "bool", "gt")
    chosen = new((dim // 2,), "fp32", "where")
    del length, longer, chosen


def dynamic_frequencies(m: "Builder", dim: int) -> None:
    """The largest position, held against the longest one so far and the one trained with: neither is passed.

    Source: as `longrope_frequencies`.
    """
    length = _largest_position()
    grown = new((), "bool", "gt")
    del grown
    short_again = new((), "bool", "lt")
    del length, short_again


def _largest_position() -> Array:
    largest = new((), "int64", "max")
    length = new((), "int64", "add")
    del largest
    return length


def _longrope(count: int) -> Array:
    factors = new((count,), "fp32", "tensor")
    numbers = new((count,), "int64", "arange")
    as_float = new((count,), "fp32", "to")
    del numbers
    exponents = new((count,), "fp32", "div")
    del as_float
    powers = new((count,), "fp32", "pow")
    product = new((count,), "fp32", "mul")
    del powers
    inverse = new((count,), "fp32", "reciprocal")
    del product
    frequencies = new((count,), "fp32", "mul")
    del inverse, exponents, factors
    return frequencies


def paired_rotary(m: "Builder", like_dtype: str, positions: Array, head_dim: int) -> tuple[Tensor, Tensor]:
    """CohereRotaryEmbedding: each frequency twice, one beside the other."""
    return rotary(m, like_dtype, positions, head_dim, paired=True)


def _each_twice(x: Tensor) -> Tensor:
    """repeat_interleave(2) over the last dim of a tensor without gradient."""
    return Tensor(new((*x.shape[:-1], 2 * x.shape[-1]), x.dtype, "repeat_interleave"))


def apply_rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, paired: bool = False) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb on q, k (b, heads, s, head_dim)."""
    cos, sin = _per_head(cos), _per_head(sin)
    q_embed = _turned(q, cos, sin, paired)
    k_embed = _turned(k, cos, sin, paired)
    return q_embed, k_embed


def apply_partial_rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The first entries of each head turned, the rest passed on: query, then key.

    Source: transformers 5.24.0, models/phi3/modeling_phi3.py, apply_rotary_pos_emb.
    """
    cos, sin = _per_head(cos), _per_head(sin)
    q_rot, q_pass = _parted(q, cos.shape[-1])
    k_rot, k_pass = _parted(k, cos.shape[-1])
    q_embed = cat(_turned(q_rot, cos, sin), q_pass, 3)
    k_embed = cat(_turned(k_rot, cos, sin), k_pass, 3)
    return q_embed, k_embed


def apply_neox_rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, paired: bool = False) -> tuple[Tensor, Tensor]:
    """The first entries of each head turned, of query and key, then joined to the rest.

    Source: transformers 5.24.0, models/{gpt_neox,glm4}/modeling_*.py, apply_rotary_pos_emb.
    """
    cos, sin = _per_head(cos), _per_head(sin)
    if paired:
        cos = _each_twice(narrow(cos, 3, cos.shape[-1] // 2))
        sin = _each_twice(narrow(sin, 3, sin.shape[-1] // 2))
    q_rot, q_pass = _parted(q, cos.shape[-1])
    k_rot, k_pass = _parted(k, cos.shape[-1])
    q_embed = _turned(q_rot, cos, sin, paired)
    k_embed = _turned(k_rot, cos, sin, paired)
    q_embed = cat(q_embed, q_pass, 3)
    k_embed = cat(k_embed, k_pass, 3)
    return q_embed, k_embed


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (b, heads, s, head_dim) alone."""
    return _turned(x, _per_head(cos), _per_head(sin))


def _turned(x: Tensor, cos: Tensor, sin: Tensor, paired: bool = False) -> Tensor:
    return add(mul(x, cos), mul((rotate_pairs if paired else rotate_half)(x), sin))


def _parted(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The first `dim` entries of the last dim, and the rest."""
    return narrow(x, 3, dim), narrow(x, 3, x.shape[-1] - dim)


def _per_head(x: Tensor) -> Tensor:
    return view(x, (x.shape[0], 1, *x.shape[1:]))


def rotate_half(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    x1 = narrow(x, 3, half)
    x2 = narrow(x, 3, half)
    return cat(neg(x2), x1, 3)


def rotate_pairs(x: Tensor) -> Tensor:
    """rotate_half where neighbours are turned. Source: transformers 5.24.0, models/cohere/modeling_cohere.py."""
    x1 = every_second(x)
    x2 = every_second(x)
    return view(stack((neg(x2), x1), len(x1.shape)), x.shape)
