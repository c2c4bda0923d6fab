"""Full fine-tuning: every parameter trains."""

from dataclasses import dataclass
from typing import final

from memcalc.methods.base import Method


@final
@dataclass(frozen=True, slots=True)
class Full(Method):
    """Full fine-tuning. Trainable parameters: all. Keeps for backward: every linear layer's input."""

    def trains(self, name: str, targets: frozenset[str]) -> bool:
        return True


METHOD = Full
