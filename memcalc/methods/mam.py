"""MAM adapters: a prefix in attention, and a parallel adapter beside the feed-forward."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Kind
from memcalc.methods.of_adapters.beside_prefix import BesidePrefix
from memcalc.methods.of_adapters.bottleneck import bottleneck_option, check_width, reduction_option, shape_option
from memcalc.methods.parallel_adapter import ParallelAdapter
from memcalc.options import option

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Mam(BesidePrefix):
    """Mix-and-match adapters: prefix tuning with a small prefix, and scaled parallel adapters with a wide bottleneck
    (He et al. 2021, arXiv:2110.04366, section 4.6).

    Trainable parameters, and all that is kept: those of both. The prefix is peft's, the adapters are our own; by
    default they are as the adapters package has them, but for its projection, which begins as wide as the hidden states
    where peft's begins as wide as a layer's keys.
    """

    kind: ClassVar[Kind] = "adapter"
    virtual_tokens: int = option(
        30, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",)
    )
    prefix_projection: bool = option(
        True, "--prefix-projection/--no-prefix-projection", "an MLP makes keys and values out of embeddings"
    )
    encoder_hidden_size: int = option(
        800, "--encoder-hidden-size", "width inside the projection; 0: that of a layer's keys", least=0
    )
    bottleneck: int = bottleneck_option()
    reduction_factor: float | None = reduction_option(2)
    non_linearity: str = shape_option("relu")
    scaling: float = option(4.0, "--scaling", "the adapter's output is scaled by it")

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    @property
    def _adapter(self) -> ParallelAdapter:
        return ParallelAdapter(self.bottleneck, self.reduction_factor, self.non_linearity, self.scaling)

    def targets(self, model: Anatomy) -> frozenset[str]:
        return self._adapter.targets(model)

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        return self._adapter.linear(m, x, w, name)

    def graft(self) -> dict[str, Any]:
        return self._adapter.graft()


METHOD = Mam
