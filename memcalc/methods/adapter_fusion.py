"""AdapterFusion: adapters of several tasks, trained before, and attention over them."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Kind, Method
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
from memcalc.tape.ops.elementwise import add, cast
from memcalc.tape.ops.linear import bmm, linear
from memcalc.tape.ops.loss import softmax
from memcalc.tape.ops.views import stack, transpose, view

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

_FACTOR = 16


@final
@dataclass(frozen=True, slots=True)
class AdapterFusion(Method):
    """AdapterFusion: attention over the outputs of frozen Pfeiffer adapters (Pfeiffer et al. 2020, arXiv:2005.00247,
    section 3.2).

    Behind each feed-forward its own output asks, and the adapters' answer. The package's penalty that keeps the values'
    matrix near the identity is left out.

    Trainable parameters: 3 d^2 + 2 d a layer, d the hidden size: far more than an adapter's. The adapters are counted,
    and have neither gradients nor states. Keeps for backward: of each layer the adapters' outputs, and their keys and
    values, (b, s, adapters, d) each, which is what it is known for; what the adapters' non-linearities keep.
    """

    kind: ClassVar[Kind] = "adapter"
    adapters: int = option(8, "--adapters", "how many adapters are fused")
    bottleneck: int = bottleneck_option(size=False)  # of what is frozen
    reduction_factor: float | None = reduction_option(_FACTOR)
    non_linearity: str = shape_option("relu")

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    def targets(self, model: Anatomy) -> frozenset[str]:
        return ends(model, (FEED_FORWARD,))

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        return self._fused(m, x, w, name) if name in m.targets else w.linear(x)

    def _fused(self, m: "Builder", y: "Tensor", w: "Weight", name: str) -> "Tensor":
        """Fused.forward of realize/modules/fusion.py."""
        d = w.d_out
        narrow = width(d, self.bottleneck, self.reduction_factor or _FACTOR)
        each = [parts(m, name, d, narrow, f"adapters.{index}", frozen=True) for index in range(self.adapters)]
        query = m.adapter(name, "fusion.query.weight", (d, d)), m.adapter(name, "fusion.query.bias", (d,), "bias")
        key = m.adapter(name, "fusion.key.weight", (d, d)), m.adapter(name, "fusion.key.bias", (d,), "bias")
        value = m.adapter(name, "fusion.value.weight", (d, d))
        h = w.linear(y)
        x = in_own_dtype(h, value)
        outputs = stack([adapted(x, own, self.non_linearity) for own in each], len(h.shape) - 1)
        update = _fusion(x, outputs, query, key, value)
        return add(h, cast(update, h.dtype))

    def graft(self) -> dict[str, Any]:
        return {
            "module": "fusion",
            "adapters": self.adapters,
            "bottleneck": self.bottleneck,
            "reduction_factor": self.reduction_factor or _FACTOR,
            "non_linearity": self.non_linearity,
        }


def _fusion(
    h: "Tensor", outputs: "Tensor", query: tuple["Tensor", "Tensor"], key: tuple["Tensor", "Tensor"], value: "Tensor"
) -> "Tensor":
    """Fusion.forward."""
    n, d = outputs.shape[-2:]
    positions = prod(h.shape[:-1])
    q = view(linear(h, *query), (positions, 1, d))
    k = view(linear(outputs, *key), (positions, n, d))
    v = view(linear(outputs, value), (positions, n, d))
    probabilities = softmax(bmm(q, transpose(k, 1, 2)))
    return view(bmm(probabilities, v), h.shape)


METHOD = AdapterFusion
