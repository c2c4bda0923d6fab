"""BAdam: one block trains at a time, by Adam in full precision."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Kind, Method

if TYPE_CHECKING:
    from memcalc.optimizers import Optimizer


@final
@dataclass(frozen=True, slots=True)
class BAdam(Method):
    """BAdam: block coordinate descent; the layers are the blocks, K steps for each (Luo et al. 2024, arXiv:2404.02827,
    section 2 and algorithm 1).

    Trainable parameters: those of one layer at a time; embeddings, head and last norm never. Adds nothing to the model.
    Keeps for backward: as full fine-tuning for the layer that trains, above it what inputs' gradients need, below it
    nothing. The optimizer keeps an fp32 copy of the block and its states, and drops both at a switch, where the next
    block's copy is made first.

    The footprint is that of the lowest layer's last step: all layers above keep activations, states are there from the
    step before, and the step ends with a switch. An item of --history is two steps: the last one of the layer above,
    and one of the lowest.
    Source: badam 1.4, block_optim.py, BlockOptimizer, as if it switched every second step.
    """

    kind: ClassVar[Kind] = "lean"

    @property
    def layers_alike(self) -> bool:
        return False

    @property
    def drops_states(self) -> bool:
        return True

    def clash(self, optimizer: "Optimizer") -> str:
        if optimizer.package == "schedulefree":
            return "BlockOptimizer makes groups anew, without the mode that this optimizer is in"
        return Method.clash(self, optimizer)

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        return frozenset().union(*self.blocks(model))

    def blocks(self, model: Anatomy) -> tuple[frozenset[str], ...]:
        return tuple(
            frozenset(name for name in model.parameters if name.startswith(f"{model.layers}.{index}."))
            for index in range(model.depth)
        )


METHOD = BAdam
