"""LISA: a few layers train at a time, embeddings and head always."""

from dataclasses import dataclass
from typing import ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind, Method
from memcalc.options import option


@final
@dataclass(frozen=True, slots=True)
class Lisa(Method):
    """LISA: every K steps other layers are drawn that train; embeddings, head and last norm always do (Pan et al. 2024,
    arXiv:2403.17919, algorithm 1).

    Trainable parameters: those of `lisa_layers` layers, and all that is in no layer. Adds nothing to the model.
    Keeps for backward: as full fine-tuning, but of frozen layers no linear layer's input.

    The optimizer knows all parameters; a layer has states from its first turn on. LMFlow's callback leaves them there
    when the layer is frozen again, so that in the end all layers have some; dropped, as in the paper's experiments,
    where each interval is a run of its own, only those that train have. The footprint is that of a run that has come
    so far: an item of --history is a step for each draw, from the lowest layers up (of `dropped` the last two draws),
    and the measured step is a further one of the top layers, whose gradients are there while all activations still
    are. A longer interval has more steps like it.
    Source: LMFlow, src/lmflow/pipeline/utils/lisa_trainer.py, DynamicLayerActivationCallback.
    """

    kind: ClassVar[Kind] = "lean"
    lisa_layers: int = option(
        2,
        "--lisa-layers",
        "how many layers train at a time",
        aliases=("--lisa-activated-layers", "--lisa-n-layers"),
        size=True,
    )
    lisa_states: str = option(
        "kept",
        "--lisa-states",
        "optimizer states of layers that train no longer: kept, as LMFlow's callback leaves them, or dropped",
        choices=("kept", "dropped"),
    )

    @property
    def layers_alike(self) -> bool:
        return False

    @property
    def drops_states(self) -> bool:
        return self.lisa_states == "dropped"

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        if self.lisa_layers > model.depth:
            raise InvalidWorkload(
                f"--lisa-layers {self.lisa_layers} is more than the {model.depth} layers that the model has"
            )
        return frozenset(model.parameters)

    def turns(self, model: Anatomy) -> tuple[frozenset[str], ...]:
        always = frozenset(name for name in model.parameters if not name.startswith(f"{model.layers}."))
        lowest = range(model.depth - self.lisa_layers, -self.lisa_layers, -self.lisa_layers)
        draws = [always | self._drawn(model, max(0, first)) for first in reversed(lowest)]
        return tuple(draws[-2:] if self.drops_states else draws)

    def _drawn(self, model: Anatomy, first: int) -> frozenset[str]:
        layers = tuple(f"{model.layers}.{index}." for index in range(first, first + self.lisa_layers))
        return frozenset(name for name in model.parameters if name.startswith(layers))


METHOD = Lisa
