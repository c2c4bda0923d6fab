"""Houlsby adapters: two bottlenecks in each layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears
from memcalc.methods.of_adapters.bottleneck import (
    ATTENTION,
    FEED_FORWARD,
    behind,
    bottleneck_option,
    check_width,
    places,
    places_option,
    reduction_option,
    shape_option,
    width,
)
from memcalc.options import option

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

_FACTOR = 16


@final
@dataclass(frozen=True, slots=True)
class Houlsby(OnLinears):
    """Houlsby adapters: h + up(f(down(h))) behind attention and behind the feed-forward, in front of the residual sum
    (Houlsby et al. 2019, arXiv:1902.00751, section 2.1).

    Trainable parameters: 2 d r + d + r per adapter, d its layer's outputs and r the bottleneck; two adapters a layer.
    The paper trains the layers' norms too (--train-norms). Keeps for backward: each adapter's input (cast to fp32 where
    adapters are kept in it), what the non-linearity keeps and its result, r wide; of the frozen model what any gradient
    needs. An adapter stands right behind its linear layer: a dropout that the model has there comes after it.
    """

    kind: ClassVar[Kind] = "adapter"
    merges: ClassVar[bool] = False
    bottleneck: int = bottleneck_option()
    reduction_factor: float | None = reduction_option(_FACTOR)
    non_linearity: str = shape_option("swish")
    train_norms: bool = option(False, "--train-norms/--no-train-norms", "the layers' norms train as well")
    target: tuple[str, ...] = places_option()

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    def targets(self, model: Anatomy) -> frozenset[str]:
        return places(self.target, model, (ATTENTION, FEED_FORWARD))

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        """All that the layers have beside linear layers."""
        if not self.train_norms:
            return frozenset()
        linears = frozenset(model.linears)
        inside = (name for name in model.parameters if name.startswith(f"{model.layers}."))
        return frozenset(name for name in inside if name.rpartition(".")[0] not in linears)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        h = w.linear(x)
        return behind(m, h, name, width(w.d_out, self.bottleneck, self.reduction_factor or _FACTOR), self.non_linearity)

    def graft(self) -> dict[str, Any]:
        return {
            "module": "bottleneck",
            "bottleneck": self.bottleneck,
            "reduction_factor": self.reduction_factor or _FACTOR,
            "non_linearity": self.non_linearity,
        }


METHOD = Houlsby
