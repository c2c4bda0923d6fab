"""GaLore: every parameter trains, by states of low rank."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from memcalc.anatomy import ALL_LINEAR, Anatomy, match_targets, names_a_layer
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind, Method
from memcalc.methods.linears import target_option
from memcalc.options import option

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Galore(Method):
    """GaLore: full fine-tuning whose optimizer keeps its moments of P^T G or G P, where P are the gradient's first
    `rank` singular vectors on the shorter side, found anew every K steps (Zhao et al. 2024, arXiv:2403.03507,
    algorithm 2).

    Trainable parameters: all. Adds nothing to the model. Keeps for backward: as full fine-tuning. The optimizer keeps
    P and two moments for the weight (m, n) of a target, r (m + n) + r max(m, n) numbers, and steps parameter by
    parameter; over fp32 P is a view of all singular vectors, which stay.

    The footprint is that of a step that looks for P: the old one and the moments are there, and so is, for a moment,
    the whole decomposition in fp32. What cuSOLVER allocates for itself, and the copy that torch hands it, are in none
    of it.
    Source: galore_torch 1.0, adamw.py, galore_projector.py; transformers 5.24.0, trainer_optimizer.py.
    """

    kind: ClassVar[Kind] = "lean"

    rank: int = option(128, "--rank", "rank to which gradients are projected", aliases=("--r",))
    target: tuple[str, ...] = target_option()

    @property
    def layers_alike(self) -> bool:
        return not names_a_layer(self.target)

    @property
    def projected_rank(self) -> int:
        return self.rank

    def targets(self, model: Anatomy) -> frozenset[str]:
        return match_targets(self.target or (ALL_LINEAR,), model)

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        return frozenset(model.parameters)

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        if m.training and w.turned and name in m.targets:
            raise InvalidWorkload(f"--method galore projects gradients of torch.nn.Linear: {name} is a Conv1D")
        return w.linear(x)


METHOD = Galore
IMPLIES = {"optimizer": "galore_adamw"}
