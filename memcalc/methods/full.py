"""Full fine-tuning: every parameter trains."""

from dataclasses import dataclass
from typing import ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Kind, Method


@final
@dataclass(frozen=True, slots=True)
class Full(Method):
    """Full fine-tuning. Trainable parameters: all. Keeps for backward: every linear layer's input."""

    kind: ClassVar[Kind] = "full"

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        return frozenset(model.parameters)


METHOD = Full
