"""What trains in which step, where not all of it always does."""

from typing import Any

import torch

from memcalc.anatomy import Anatomy
from memcalc.methods.base import Method, Turn, round_of


class Turns:
    """The steps of a round, and the switch to what trains in one of them: by flags, as callbacks of Trainer's do it."""

    def __init__(self, model: Any, anatomy: Anatomy, method: Method, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.drops_states = optimizer, method.drops_states
        self.trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.round = round_of(method.turns(anatomy), method.blocks(anatomy))

    def take(self, turn: Turn) -> None:
        """Freeze what is not in the turn; the optimizer may forget what it kept for it."""
        if turn is None:
            return
        for name, parameter in self.trained.items():
            parameter.requires_grad_(name in turn)
            if self.drops_states and name not in turn:
                self.optimizer.state.pop(parameter, None)
