"""An optimizer's states and its step, block by block; the step's temporaries are in updates.py."""

from collections.abc import Iterable
from typing import NamedTuple

from memcalc.optimizers import Optimizer, State, Trained
from memcalc.step.updates import UPDATES, by_dtype
from memcalc.tape.tape import Array, Leaf, Tensor, leaf_of, like, new, on_cuda, tape


class Habits(NamedTuple):
    """What the loop and its user ask of an optimizer."""

    momentum: float = 0.0
    prepared: bool = False  # by accelerate, which moves what a constructor has made onto the device
    in_32_bits: frozenset[Leaf] = frozenset()  # parameters that are spared, as Trained says


class States:
    """An optimizer and what it keeps between steps: per trained tensor its states by name."""

    def __init__(self, row: Optimizer, groups: list[list[Tensor]], habits: Habits = Habits()) -> None:  # noqa: B008
        self.row, self.habits = row, habits
        self.groups = [[leaf_of(parameter) for parameter in group] for group in groups]
        self.kept: dict[Leaf, dict[str, Array]] = {}
        self.shared: dict[str, Array] = {}
        if row.made == "at once":
            self._make(leaf for group in self.groups for leaf in group)
            if habits.prepared and on_cuda():
                self._count_on_device()

    def step(self) -> None:
        """One step over every group of parameters."""
        groups = [[leaf for leaf in group if leaf.grad is not None] for group in self.groups]
        if self.row.made == "from gradients" and on_cuda():
            for group in groups:
                self._make(leaf for leaves in by_dtype(group) for leaf in leaves)
        UPDATES[self.row.temporaries](groups, self.of)

    def prepare(self) -> None:
        """All states at once, as a first step leaves them."""
        for group in self.groups:
            self._make(group)
            for leaf in group:
                self.kept[leaf] |= {state.name: _born(leaf, state) for state in self._states(leaf) if state.by_update}

    def of(self, leaf: Leaf) -> dict[str, Array]:
        """A parameter's states, made when it is first seen."""
        if leaf not in self.kept:
            made = {state.name: self._made(leaf, state) for state in self._states(leaf) if _on_device(state)}
            if self.row.momentum and self.habits.momentum:
                tape.scope = leaf.scope
                made[self.row.momentum] = like(leaf.array, self.row.momentum, category="optimizer_states")
            self.kept[leaf] = made
        return self.kept[leaf]

    def drop(self, leaf: Leaf) -> None:
        """A parameter's states are forgotten."""
        self.kept.pop(leaf, None)

    def _count_on_device(self) -> None:
        """The counts of steps are moved from the host.

        Source: accelerate 1.15.0, optimizer.py, AcceleratedOptimizer (move_to_device, load_state_dict).
        """
        for leaf, kept in self.kept.items():
            kept["step"] = _born(leaf, State("step", (), "fp32"))

    def _make(self, leaves: Iterable[Leaf]) -> None:
        for leaf in leaves:
            self.of(leaf)

    def _made(self, leaf: Leaf, state: State) -> Array:
        if not state.shared:
            return _born(leaf, state)
        if state.name not in self.shared:
            tape.scope = ""
            self.shared[state.name] = new(state.shape, state.dtype, state.name, "optimizer_states")
        return self.shared[state.name]

    def _states(self, leaf: Leaf) -> tuple[State, ...]:
        return self.row.states(Trained(leaf.array.shape, leaf.array.dtype, leaf in self.habits.in_32_bits))

    def zero_grad(self, to: str) -> None:
        """Gradients are dropped, or zeroed in place."""
        if to == "none":
            for group in self.groups:
                for leaf in group:
                    leaf.grad = None


def _on_device(state: State) -> bool:
    """Whether it is a block of the device's allocator that is there before the first update."""
    return not state.by_update and not state.paged


def _born(leaf: Leaf, state: State) -> Array:
    tape.scope = leaf.scope
    return new(state.shape, state.dtype, state.name, "optimizer_states")
