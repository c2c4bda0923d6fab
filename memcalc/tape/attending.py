"""Attention as transformers calls it: eager, sdpa by the kernel that CUDA takes, or the flash-attn library.

Source: transformers 5.24.0, models/llama/modeling_llama.py and integrations/ unless a function says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.kernels import Gpu, check_dtypes
from memcalc.tape.autocast import lower
from memcalc.tape.ops import attention as fused
from memcalc.tape.ops import packing
from memcalc.tape.ops.elementwise import add, added_in_place, broadcast, cast, divide, dropout, scale, tanh
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.loss import safe_softmax, softmax_fp32
from memcalc.tape.ops.views import clone_contiguous, contiguous, expand, reshape, transpose, unsafe_view, view
from memcalc.tape.tape import Array, Tensor, new, tape, wants

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


@dataclass(frozen=True, slots=True, repr=False)
class Attention:
    """Which attention a run takes: transformers' implementation, and the card that chooses sdpa's kernel."""

    implementation: str  # eager, sdpa or flash_attention_2
    gpu: Gpu
    pinned: str | None = None  # one sdpa kernel
    dropout: float = 0.0
    training: bool = True
    flash_dtype: str = "bf16"  # in which the flash-attn library computes where q, k, v are fp32


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
    if m.declaring:  # attention has no parameters, and no kernel is chosen on made-up shapes
        m.attends_by_interface = True
        return Tensor(new((b, s, count * d), q.dtype, "attention")), None
    if tape.autocast is None:
        check_dtypes("attention", q.dtype, k.dtype, v.dtype)
    run = partial(_attend, m, places=places, eager=eager or eager_attention, length=s)
    out, weights = m.method.attend(m, q, k, v, mask, run)
    return reshape(out, (b, s, count * d)), weights


def _attend(
    m: "Builder",
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Array | None,
    *,
    places: Array | None,
    eager: "EagerAttention",
    length: int,
) -> tuple[Tensor, Tensor | None]:
    """The function of the run's implementation: (b, s, heads, d). A mask's one zero stands behind all `length`."""
    if m.attention.implementation == "eager":
        return eager(m, q, k, v, mask)
    if m.attention.implementation == "sdpa":
        return sdpa_attention(m, q, k, v, mask), None
    return flash_attention_2(m, q, k, v, mask, places, zeros=int(q.shape[2] == length)), None


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
    times, s, k_len = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    bias = None if mask is None else fused.additive_mask(mask, q.dtype)  # before the body, in q's own dtype
    q_acc, k_acc, v_acc = cast(q, "fp32"), cast(k, "fp32"), cast(v, "fp32")
    q_scaled = scale(q_acc)
    if bias is None and s > 1:
        bias = fused.additive_mask(_lower_triangle(s, k_len), "fp32")
    k_all, v_all = (interleaved(k_acc, times), interleaved(v_acc, times)) if gqa and times > 1 else (k_acc, v_acc)
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


def interleaved(x: Tensor, times: int) -> Tensor:
    """torch.repeat_interleave over the heads (b, heads, s, d): always a copy.

    Source: PyTorch 2.13, aten/src/ATen/native/Repeat.cpp.
    """
    b, heads, s, d = x.shape
    repeated = clone_contiguous(expand(view(x, (b, heads, 1, s, d)), (b, heads, times, s, d)))
    return view(repeated, (b, times * heads, s, d))


def flash_attention_2(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, places: Array | None, zeros: int = 1
) -> Tensor:
    """flash_attention_forward: (b, s, heads, d); fp32 inputs are cast down first. `zeros`: how many the mask has.

    Source: transformers 5.24.0, integrations/flash_attention.py, modeling_flash_attention_utils.py.
    """
    by_position = transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)
    q_half, k_half, v_half = (cast(x, m.attention.flash_dtype) if q.dtype == "fp32" else x for x in by_position)
    return flash_by_position(m, q_half, k_half, v_half, mask, places, zeros)


def flash_by_position(
    m: "Builder", q: Tensor, k: Tensor, v: Tensor, mask: Array | None, places: Array | None, zeros: int = 1
) -> Tensor:
    """_flash_attention_forward: half-precision q, k, v (b, s, heads, d) -> (b, s, heads, d).

    Source: as `flash_attention_2`.
    """
    if not q.dtype == k.dtype == v.dtype:
        raise InvalidWorkload(
            f"--attention flash takes keys in the queries' dtype, which is {q.dtype} here, and what is before them is "
            f"{k.dtype}: take --attention sdpa, or --dtype {q.dtype}"
        )
    if mask is not None:
        return packing.flash_over_padding(m.attention, q, k, v, mask, zeros)
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
