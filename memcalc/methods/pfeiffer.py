"""Pfeiffer adapters: one bottleneck in each layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy, names_a_layer
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears
from memcalc.methods.of_adapters.bottleneck import (
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
class Pfeiffer(OnLinears):
    """Pfeiffer adapters: h + up(f(down(h))) behind the feed-forward alone, the best place of one in a layer
    (Pfeiffer et al. 2020, arXiv:2005.00247, appendix A).

    Trainable parameters: 2 d r + d + r a layer, d the hidden size and r the bottleneck. Keeps for backward: as
    Houlsby's; below the lowest adapter nothing, where no gradient goes, unless checkpointing makes the embedding's
    output require one.
    """

    kind: ClassVar[Kind] = "adapter"
    merges: ClassVar[bool] = False
    bottleneck: int = bottleneck_option()
    reduction_factor: float | None = reduction_option(_FACTOR)
    non_linearity: str = shape_option("relu")
    drop_layers: int = option(0, "--drop-layers", "how many of the lowest layers have no adapter", least=0)
    target: tuple[str, ...] = places_option()

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    @property
    def layers_alike(self) -> bool:
        return not self.drop_layers and not names_a_layer(self.target)

    def targets(self, model: Anatomy) -> frozenset[str]:
        dropped = tuple(f"{model.layers}.{index}." for index in range(self.drop_layers))
        kept = frozenset(name for name in places(self.target, model, (FEED_FORWARD,)) if not name.startswith(dropped))
        if not kept:
            raise InvalidWorkload(
                f"--drop-layers {self.drop_layers} leaves no adapter in a model of {model.depth} layers"
            )
        return kept

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


METHOD = Pfeiffer
