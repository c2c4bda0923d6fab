"""What trains in which step, where not all of it always does; memcalc/realize/turns.py is the same for real ones."""

from memcalc.methods.base import Turn, round_of
from memcalc.step.loading import Loaded, link
from memcalc.step.optimizer import States
from memcalc.tape.builder import Builder
from memcalc.tape.tape import Tensor, leaf_of


class Turns:
    """The steps of a round, and the switch to what trains in one of them."""

    def __init__(self, m: Builder, loaded: Loaded, states: States, *, drops_states: bool) -> None:
        self.m, self.loaded, self.states, self.drops_states = m, loaded, states, drops_states
        self.round = round_of(loaded.model.turns, loaded.model.blocks)

    def take(self, turn: Turn) -> None:
        """Freeze what is not in the turn; the optimizer may forget what it kept for it."""
        if turn is None:
            return
        for name, parameter in self.loaded.trained.items():
            self.m.parameters[name] = parameter if name in turn else Tensor(parameter.data)
            if self.drops_states and name not in turn:
                self.states.drop(leaf_of(parameter))
        link(self.m, self.loaded.model)
