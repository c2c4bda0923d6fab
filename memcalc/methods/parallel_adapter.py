"""Parallel adapters: a bottleneck beside the feed-forward of each layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
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
from memcalc.tape.ops.elementwise import add, cast, scale

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

_FACTOR = 2
_BEGINS = ("gate_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h")  # what is called first in a feed-forward


@final
@dataclass(frozen=True, slots=True)
class ParallelAdapter(Method):
    """Scaled parallel adapters: h + scaling * up(f(down(x))), h being the feed-forward's output and x its input
    (He et al. 2021, arXiv:2110.04366, section 4).

    Trainable parameters: 2 d r + d + r a layer, d the hidden size and r the bottleneck, by default half of it. Keeps
    for backward: each feed-forward's input (cast to fp32 where adapters are kept in it), what the non-linearity keeps
    and its result. An adapter joins right behind the last linear layer: a dropout that the model has there comes after.
    """

    kind: ClassVar[Kind] = "adapter"
    bottleneck: int = bottleneck_option()
    reduction_factor: float | None = reduction_option(_FACTOR)
    non_linearity: str = shape_option("relu")
    scaling: float = option(4.0, "--scaling", "the adapter's output is scaled by it")

    def __post_init__(self) -> None:
        check_width(self.bottleneck, self.reduction_factor)

    def targets(self, model: Anatomy) -> frozenset[str]:
        """The layers that the feed-forwards end in."""
        found = ends(model, (FEED_FORWARD,))
        begun = {name.rpartition(".")[0] for name in model.linears if name.endswith(tuple(f".{x}" for x in _BEGINS))}
        for name in found:
            if name.rpartition(".")[0] not in begun:
                raise InvalidWorkload(
                    f"beside {name} stands none of {', '.join(_BEGINS)}, with which its sub-layer begins"
                )
        return found

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        block, _, own_name = name.rpartition(".")
        if own_name in _BEGINS:
            m.noted[block] = x
        return self._beside(m, x, w, name, block) if name in m.targets else w.linear(x)

    def _beside(self, m: "Builder", y: "Tensor", w: "Weight", name: str, block: str) -> "Tensor":
        """Beside.forward of realize/modules/parallel.py."""
        own = parts(m, name, w.d_out, width(w.d_out, self.bottleneck, self.reduction_factor or _FACTOR))
        h = w.linear(y)
        x = m.noted.pop(block)
        update = scale(adapted(in_own_dtype(x, own.down), own, self.non_linearity))
        return add(h, cast(update, h.dtype))

    def graft(self) -> dict[str, Any]:
        return {
            "module": "parallel",
            "begins": _BEGINS,
            "bottleneck": self.bottleneck,
            "reduction_factor": self.reduction_factor or _FACTOR,
            "non_linearity": self.non_linearity,
            "scaling": self.scaling,
        }


METHOD = ParallelAdapter
