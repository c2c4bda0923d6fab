"""UniPELT: LoRA, a prefix and adapters, each let in by a gate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import DEFAULT_TARGETS, Anatomy, goes_by, match_targets
from memcalc.methods.base import Kind
from memcalc.methods.of_adapters.beside_prefix import BesidePrefix
from memcalc.methods.of_adapters.bottleneck import (
    FEED_FORWARD,
    adapted,
    bottleneck_option,
    check_width,
    ends,
    in_own_dtype,
    parts,
    reduction_option,
    shape_option,
    width,
)
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, mean, mul, scale, sigmoid
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import view

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

_FACTOR = 16
_FIRST = ("q_proj", "qkv_proj", "query_key_value", "c_attn")  # what attention calls before it sees its cache


@final
@dataclass(frozen=True, slots=True)
class Unipelt(BesidePrefix):
    """UniPELT: LoRA, prefix tuning and Pfeiffer adapters, each let in by a gate (Mao et al. 2021, arXiv:2110.07577,
    section 3.2).

    A gate is a number for each row, computed from what it stands beside; behind OPT's feed-forward, which sees all rows
    as one, a number for all.

    Trainable parameters: those of all three, and d + 1 for each gate: one for each LoRA target, and two a layer, of its
    prefix and its adapter. Keeps for backward: what all three keep; for the gates each LoRA and adapter output once
    more, and the ungated prefix. The prefix is peft's, the rest is our own; by default they are as the adapters package
    has them, but for two things: its projection begins as wide as the hidden states where peft's begins as wide as a
    layer's keys, and in a fused layer it gives queries and values a LoRA and a gate each, where ours spans the layer as
    peft's LoRA does.
    """

    kind: ClassVar[Kind] = "adapter"
    rank: int = option(8, "--rank", "rank of LoRA's update", aliases=("--lora-r", "--lora-rank", "--r"))
    alpha: float = option(2.0, "--alpha", "LoRA's update is scaled by alpha / rank", aliases=("--lora-alpha",))
    virtual_tokens: int = option(
        10, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",)
    )
    prefix_projection: bool = option(
        True, "--prefix-projection/--no-prefix-projection", "an MLP makes keys and values out of embeddings"
    )
    encoder_hidden_size: int = option(
        512, "--encoder-hidden-size", "width inside the projection; 0: that of a layer's keys", least=0
    )
    bottleneck: int = bottleneck_option()
    reduction_factor: float | None = reduction_option(_FACTOR)
    non_linearity: str = shape_option("relu")

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    def targets(self, model: Anatomy) -> frozenset[str]:
        """LoRA's, and the layers that the feed-forwards end in."""
        return match_targets(DEFAULT_TARGETS.get(model.model_type, _FIRST), model) | ends(model, (FEED_FORWARD,))

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        def with_gates(fed: "Batch") -> "Output":
            m.prefix = fed.cache
            return model(fed)

        output = self.prefix.feed(m, batch, with_gates)
        m.prefix = None
        return output

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        if name not in m.targets:
            return w.linear(x)
        return (self._adapted if goes_by(name, FEED_FORWARD) else self._low_rank)(m, x, w, name)

    def _adapted(self, m: "Builder", y: "Tensor", w: "Weight", name: str) -> "Tensor":
        """GatedAdapter.forward of realize/modules/gated.py."""
        own = parts(m, name, w.d_out, width(w.d_out, self.bottleneck, self.reduction_factor or _FACTOR))
        opening = _gate(m, name, "gate", w.d_out)
        h = w.linear(y)
        x = in_own_dtype(h, own.down)
        update = mul(adapted(x, own, self.non_linearity), _opened(x, *opening))
        return add(h, cast(update, h.dtype))

    def _low_rank(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """GatedLora.forward."""
        a = m.adapter(name, "lora_a.weight", (self.rank, w.d_in))
        b = m.adapter(name, "lora_b.weight", (w.d_out, self.rank))
        opening = _gate(m, name, "gate", w.d_in)
        low = in_own_dtype(x, a)
        if goes_by(name, _FIRST):
            _let_prefix_in(m, low, *_gate(m, name, "prefix_gate", w.d_in))
        h = w.linear(x)
        update = mul(scale(linear(linear(low, a), b)), _opened(low, *opening))
        return add(h, cast(update, h.dtype))

    def graft(self) -> dict[str, Any]:
        return {
            "module": "gated",
            "ends": FEED_FORWARD,
            "first": _FIRST,
            "rank": self.rank,
            "scaling": self.alpha / self.rank,
            "bottleneck": self.bottleneck,
            "reduction_factor": self.reduction_factor or _FACTOR,
            "non_linearity": self.non_linearity,
        }


def _gate(m: "Builder", name: str, gate: str, d: int) -> tuple["Tensor", "Tensor"]:
    return m.adapter(name, f"{gate}.open.weight", (1, d)), m.adapter(name, f"{gate}.open.bias", (1,), "bias")


def _opened(x: "Tensor", weight: "Tensor", bias: "Tensor") -> "Tensor":
    """Gate.forward: (..., s, d) -> (..., 1, 1)."""
    each = sigmoid(linear(x, weight, bias))
    averaged = mean(view(each, x.shape[:-1]))
    return view(averaged, (*x.shape[:-2], 1, 1))


def _let_prefix_in(m: "Builder", x: "Tensor", weight: "Tensor", bias: "Tensor") -> None:
    """The keys and values that the layer's cache begins with, times the gate."""
    if m.prefix is None:
        return
    _, past = m.prefix.filled[len(m.prefix.kept)]
    opened = _opened(x, weight, bias)
    opened = cast(view(opened, (*opened.shape, 1)), past[0].dtype)
    past[0] = mul(past[0], opened)
    past[1] = mul(past[1], opened)


METHOD = Unipelt
