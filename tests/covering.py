"""Cases in which every pair of values occurs: a greedy generator (Cohen et al. 1997, "The AETG system")."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

Case: TypeAlias = tuple[str, ...]
Place: TypeAlias = tuple[int, str]  # an axis and a value on it
Pair: TypeAlias = tuple[Place, Place]

_TRIES = 2000  # random completions of a pair before it is called impossible
_CANDIDATES = 4  # possible completions of which the best is taken
_RUNS = 3  # cases that were refused before a pair is given up


def pairs(case: Case) -> set[Pair]:
    """All pairs of values that occur in a case."""
    return set(itertools.combinations(enumerate(case), 2))


class Cover:
    """Draws cases until each pair of values that can go together has been in one that ran.

    `axes` holds the values of each dimension, `settled` puts right what follows from other values, `possible` says
    whether a case may be drawn at all. The same seed and the same answers to `ran` and `refused` give the same cases.
    """

    def __init__(
        self,
        axes: Sequence[Sequence[str]],
        possible: Callable[[Case], bool],
        settled: Callable[[Case], Case] = tuple,
        seed: int = 0,
    ) -> None:
        self.axes, self.possible, self.settled = axes, possible, settled
        self.random = random.Random(seed)
        places = [[(axis, value) for value in values] for axis, values in enumerate(axes)]
        found = [pair for one, other in itertools.combinations(places, 2) for pair in itertools.product(one, other)]
        self.random.shuffle(found)
        self.missing: dict[Pair, int] = dict.fromkeys(found, 0)  # how often a case with it was refused
        self.total = len(found)
        self.impossible: list[Pair] = []
        self.given_up: list[Pair] = []
        self._drawn: Pair | None = None

    def draw(self) -> Case | None:
        """The next case, for the pair that has waited longest; None where no pair is left."""
        while self.missing:
            self._drawn = next(iter(self.missing))
            case = self._best(self._drawn)
            if case is not None:
                return case
            self.impossible.append(self._drawn)
            del self.missing[self._drawn]
        return None

    def ran(self, case: Case) -> None:
        """The case was compared: its pairs are covered."""
        for pair in pairs(case):
            self.missing.pop(pair, None)

    def refused(self) -> None:
        """The last case could not be run; the pair that it was drawn for gets other company, a few times."""
        assert self._drawn is not None
        self.missing[self._drawn] += 1
        if self.missing[self._drawn] == _RUNS:
            del self.missing[self._drawn]
            self.given_up.append(self._drawn)

    def _best(self, wanted: Pair) -> Case | None:
        found: list[Case] = []
        for _ in range(_TRIES):
            labels = [self.random.choice(values) for values in self.axes]
            for axis, value in wanted:
                labels[axis] = value
            case = self.settled(tuple(labels))
            if all(case[axis] == value for axis, value in wanted) and self.possible(case):
                found.append(self._improved(list(case), {axis for axis, _ in wanted}))
                if len(found) == _CANDIDATES:
                    break
        return max(found, key=self._gain, default=None)

    def _gain(self, case: Case) -> int:
        return sum(pair in self.missing for pair in pairs(case))

    def _improved(self, labels: list[str], fixed: set[int]) -> Case:
        """Value by value, whatever brings more missing pairs, until nothing does."""
        best, better = self._gain(tuple(labels)), True
        order = [axis for axis in range(len(labels)) if axis not in fixed]
        while better:
            better = False
            self.random.shuffle(order)
            for axis, value in [(turn, value) for turn in order for value in self.axes[turn]]:
                tried = [*labels[:axis], value, *labels[axis + 1 :]]
                gain = self._gain(tuple(tried))
                if gain > best and self.possible(tuple(tried)):
                    labels, best, better = tried, gain, True
        return tuple(labels)
