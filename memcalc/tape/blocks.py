"""What models are made of, composed of primitives as transformers composes it: no rules here.

Source: transformers 5.24.0, models/llama/modeling_llama.py unless a block says otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from memcalc.errors import NotModelled, shown
from memcalc.kernels import Gpu
from memcalc.tape.autocast import lower
from memcalc.tape.ops import attention as fused
from memcalc.tape.ops import packing
from memcalc.tape.ops.elementwise import (
    add,
    added_in_place,
    broadcast,
    cast,
    divide,
    divided,
    dropout,
    gelu,
    mean,
    mul,
    neg,
    power,
    relu,
    rsqrt,
    scale,
    shift,
    silu,
    square,
    sub,
    tanh,
)
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.loss import log_softmax, nll_loss, safe_softmax, softmax_fp32
from memcalc.tape.ops.views import (
    cat,
    clone_contiguous,
    contiguous,
    every_second,
    expand,
    narrow,
    reshape,
    split,
    stack_last,
    transpose,
    unsafe_view,
    view,
)
from memcalc.tape.tape import Array, Tensor, new, tape, wants

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


@dataclass(frozen=True, slots=True)
class Attention:
    """Which attention a run takes: transformers' implementation, and the card that chooses sdpa's kernel."""

    implementation: str  # eager, sdpa or flash_attention_2
    gpu: Gpu
    pinned: str | None = None  # one sdpa kernel
    dropout: float = 0.0
    training: bool = True
    flash_dtype: str = "bf16"  # in which the flash-attn library computes where q, k, v are fp32


def rms_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """LlamaRMSNorm: computed in fp32."""
    x = cast(hidden, "fp32")
    variance = mean(square(x))
    x = mul(x, rsqrt(shift(variance)))
    return mul(weight, cast(x, hidden.dtype))


def centred_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """GemmaRMSNorm: the weight is one more than its parameter, and applied in fp32.

    Source: transformers 5.24.0, models/gemma/modeling_gemma.py.
    """
    output = _normed(cast(x, "fp32"))
    output = mul(output, shift(cast(weight, "fp32")))
    return cast(output, x.dtype)


def wide_rms_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """Olmo2RMSNorm: the weight is applied in fp32. Source: transformers 5.24.0, models/olmo2/modeling_olmo2.py."""
    x = cast(hidden, "fp32")
    variance = mean(square(x))
    x = mul(x, rsqrt(shift(variance)))
    return cast(mul(weight, x), hidden.dtype)


def mean_free_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """CohereLayerNorm: layer norm written out. Source: transformers 5.24.0, models/cohere/modeling_cohere.py."""
    x = cast(hidden, "fp32")
    average = mean(x)
    variance = mean(square(sub(x, average)))
    x = mul(sub(x, average), rsqrt(shift(variance)))
    x = mul(cast(weight, "fp32"), x)
    return cast(x, hidden.dtype)


def _normed(x: Tensor) -> Tensor:
    return mul(x, rsqrt(shift(mean(square(x)))))


def gated_mlp(m: "Builder", x: Tensor, intermediate: int, bias: bool, act: str = "silu") -> Tensor:
    """LlamaMLP: down(act(gate(x)) * up(x))."""
    hidden = x.shape[-1]
    return m.linear(
        mul(activation(m.linear(x, "gate_proj", intermediate, bias), act), m.linear(x, "up_proj", intermediate, bias)),
        "down_proj",
        hidden,
        bias,
    )


def fused_gated_mlp(m: "Builder", x: Tensor, intermediate: int, act: str) -> Tensor:
    """Phi3MLP: gate and up are the halves of one product. Source: transformers 5.24.0, models/phi3/modeling_phi3.py."""
    hidden = x.shape[-1]
    up = m.linear(x, "gate_up_proj", 2 * intermediate)
    gate, up = split(up, (intermediate, intermediate), 2)
    up = mul(up, activation(gate, act))
    return m.linear(up, "down_proj", hidden)


def activation(x: Tensor, name: str) -> Tensor:
    """ACT2FN[name]. Source: transformers 5.24.0, activations.py. Raises NotModelled for a rare one."""
    function = _ACTIVATIONS.get(name)
    if function is None:
        raise NotModelled(f"estimate does not write the activation {shown(name)}: memcalc trace runs the real one")
    return function(x)


def gelu_new(x: Tensor) -> Tensor:
    """NewGELUActivation: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    return mul(scale(x), shift(tanh(scale(add(x, scale(power(x)))))))


def gelu_fast(x: Tensor) -> Tensor:
    """FastGELUActivation: 0.5 x (1 + tanh(x * 0.7978845608 (1 + 0.044715 x x)))."""
    return mul(scale(x), shift(tanh(mul(scale(x), shift(mul(scale(x), x))))))


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "relu": relu,
}


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
    return view(stack_last(neg(x2), x1), x.shape)


def attention(
    m: "Builder",
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Array | None,
    places: Array | None,
    eager: "EagerAttention | None" = None,
) -> tuple[Tensor, Tensor | None]:
    """What ALL_ATTENTION_FUNCTIONS picks: q (b, heads, s, d), k and v (b, kv_heads, s, d) -> (b, s, heads * d).

    `eager`: the family's own eager_attention_forward, where it differs from Llama's.

    The second result are eager attention's weights: they live as long as the caller keeps the name.
    """
    b, count, s, d = q.shape
    weights = None
    if m.declaring:  # attention has no parameters, and no kernel is chosen on made-up shapes
        return Tensor(new((b, s, count * d), q.dtype, "attention")), None
    if m.attention.implementation == "eager":
        out, weights = (eager or eager_attention)(m, q, k, v, mask)
    elif m.attention.implementation == "sdpa":
        out = sdpa_attention(m, q, k, v, mask)
    else:
        out = flash_attention_2(m, q, k, v, mask, places)
    return reshape(out, (b, s, count * d)), weights


def repeat_kv(x: Tensor, times: int) -> Tensor:
    """Each K/V head repeated for its queries."""
    if times == 1:
        return x
    b, kv_heads, s, d = x.shape
    return reshape(expand(view(x, (b, kv_heads, 1, s, d)), (b, kv_heads, times, s, d)), (b, kv_heads * times, s, d))


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """torch.matmul of two 4-dimensional tensors: broadcast and fold the batch, bmm, unfold.

    Autocast casts before anything else.
    """
    b, h = broadcast(x.shape[:2], y.shape[:2])
    p, q, r = x.shape[2], x.shape[3], y.shape[3]
    x_low, y_low = lower(x), lower(y)
    folded = reshape(expand(x_low, (b, h, p, q)), (b * h, p, q)), reshape(expand(y_low, (b, h, q, r)), (b * h, q, r))
    return unsafe_view(bmm(*folded), (b, h, p, r))


EagerAttention = Callable[["Builder", Tensor, Tensor, Tensor, Array | None], tuple[Tensor, Tensor]]


def eager_attention(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, *, softcap: bool = False
) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: scores written out, and squeezed between two bounds with `softcap`."""
    times = q.shape[1] // k.shape[1]
    k_states = repeat_kv(k, times)
    v_states = repeat_kv(v, times)
    weights = scale(matmul(q, transpose(k_states, 2, 3)))
    if softcap:
        for step in SOFTCAP:
            weights = step(weights)
    if mask is not None:
        weights = add(weights, Tensor(mask))
    weights = cast(softmax_fp32(weights), q.dtype)
    weights = dropout(weights, m.attention.dropout if m.training else 0.0)
    out = matmul(weights, v_states)
    out = contiguous(transpose(out, 1, 2))
    return out, weights


capped_eager_attention: EagerAttention = partial(eager_attention, softcap=True)
Steps = Sequence[Callable[[Tensor], Tensor]]  # what a tensor goes through under one name
SOFTCAP: Steps = (divide, tanh, scale)


def sdpa_attention(m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None) -> Tensor:
    """sdpa_attention_forward: (b, s, heads, d). Source: transformers 5.24.0, integrations/sdpa_attention.py."""
    run = m.attention
    b, count, s, d = q.shape
    kv_heads = k.shape[1]
    if count > kv_heads and (mask is not None or d > 256 or run.pinned == "efficient"):  # that kernel takes no GQA
        if s == 1:  # one query a head: the heads of a group become its queries
            q = reshape(q, (b, kv_heads, count // kv_heads, d))
        else:
            k = repeat_kv(k, count // kv_heads)
            v = repeat_kv(v, count // kv_heads)
    out = scaled_dot_product_attention(m, q, k, v, mask)
    return contiguous(transpose(reshape(out, (b, count, s, d)), 1, 2))


def scaled_dot_product_attention(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, *, gqa: bool = True
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention by the kernel that CUDA takes.

    `gqa`: enable_gqa, without which fewer heads of K and V are broadcast, by plain products only.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp.
    """
    run = m.attention
    q, k, v = lower(q), lower(k), lower(v)
    if mask is not None and mask.dtype != "bool":
        mask = lower(Tensor(mask)).data
    outer, tape.autocast = tape.autocast, None  # autocast cast the call's inputs, and takes no part inside
    out = _by_kernel(m, run, q, k, v, mask, gqa=gqa)
    tape.autocast = outer
    return out


def _by_kernel(
    m: "Builder", run: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Array | None, *, gqa: bool
) -> Tensor:
    training = wants(q) or wants(k) or wants(v)
    kernel = fused.kernel_for(run, q, k, masked=mask is not None, training=training, gqa=gqa)
    m.kernels_taken[kernel] = None
    if kernel == "flash":
        return fused.flash(run, q, k, v)
    if kernel == "efficient":
        return fused.efficient(run, q, k, v, mask)
    if kernel == "cudnn":
        return fused.cudnn(q, k, v, mask)
    return math_attention(m, q, k, v, mask, gqa=gqa)


def math_attention(m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, *, gqa: bool = True) -> Tensor:
    """_scaled_dot_product_attention_math: scores written out in fp32, K and V repeated for their queries.

    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp.
    """
    heads, s, k_len = q.shape[1], q.shape[2], k.shape[2]
    bias = None if mask is None else fused.additive_mask(mask, q.dtype)  # before the body, in q's own dtype
    q_acc, k_acc, v_acc = cast(q, "fp32"), cast(k, "fp32"), cast(v, "fp32")
    q_scaled = scale(q_acc)
    if bias is None and s > 1:
        bias = fused.additive_mask(_lower_triangle(s, k_len), "fp32")
    k_all, v_all = (_interleaved(k_acc, heads), _interleaved(v_acc, heads)) if gqa else (k_acc, v_acc)
    weights = matmul(q_scaled, scale(transpose(k_all, 2, 3)))
    if bias is not None:
        weights = added_in_place(weights)
    weights = safe_softmax(weights)
    weights = dropout(weights, m.attention.dropout if m.training else 0.0)
    second = cast(weights, q.dtype)  # the C++ compiler evaluates a tuple's last element first
    out = cast(matmul(weights, v_all), q.dtype)
    del bias, second
    return out


def _lower_triangle(q_len: int, k_len: int) -> Array:
    ones = new((q_len, k_len), "bool", "ones")
    triangle = new((q_len, k_len), "bool", "tril")
    del ones
    return triangle


def _interleaved(x: Tensor, heads: int) -> Tensor:
    """repeat_interleave over the heads: always a copy."""
    b, kv_heads, s, d = x.shape
    if kv_heads == heads:
        return x
    times = heads // kv_heads
    repeated = clone_contiguous(expand(view(x, (b, kv_heads, 1, s, d)), (b, kv_heads, times, s, d)))
    return view(repeated, (b, heads, s, d))


def flash_attention_2(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, places: Array | None
) -> Tensor:
    """flash_attention_forward: (b, s, heads, d); fp32 inputs are cast down first.

    Source: transformers 5.24.0, integrations/flash_attention.py, modeling_flash_attention_utils.py.
    """
    by_position = transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)
    q_half, k_half, v_half = (cast(x, m.attention.flash_dtype) if q.dtype == "fp32" else x for x in by_position)
    return flash_by_position(m, q_half, k_half, v_half, mask, places)


def flash_by_position(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, places: Array | None
) -> Tensor:
    """_flash_attention_forward: half-precision q, k, v (b, s, heads, d) -> (b, s, heads, d).

    Source: as `flash_attention_2`.
    """
    if mask is not None:
        return packing.flash_over_padding(m.attention, q, k, v, mask)
    if q.shape[0] == 1 and places is not None and places.shape[1] > 1:
        _look_for_packed_rows(places.shape[1])
    return fused.flash_library(m.attention, q, k, v)


def _look_for_packed_rows(s: int) -> None:
    """Do positions start again within the one row? (modeling_flash_attention_utils.py, _is_packed_sequence)."""
    counted, first = new((s,), "int64", "arange"), new((), "int64", "min")
    increasing = new((s,), "int64", "add")
    del counted, first
    difference = new((1, s), "int64", "sub")
    size = new((1, s), "int64", "abs")
    del difference
    total = new((), "int64", "sum")
    del size
    answer = new((), "bool", "to")
    del total, increasing, answer


def causal_lm_loss(logits: Tensor, labels: Array, averaged_over: Array | None) -> Tensor:
    """ForCausalLMLoss: fp32 logits, labels shifted, cross-entropy; divided by a count on the device where given.

    Source: transformers 5.24.0, loss/loss_utils.py.
    """
    logits_fp32 = cast(logits, "fp32")
    b, s = labels.shape
    padded = new((b, s + 1), "int64", "pad")
    shifted = new((b, s), "int64", "contiguous") if b > 1 else padded  # the padded labels stay a local
    flat = view(logits_fp32, (b * s, logits.shape[-1]))
    loss = nll_loss(log_softmax(flat), shifted)
    return divided(loss, averaged_over) if averaged_over is not None else loss
