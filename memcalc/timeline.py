"""The list that decides everything: who allocates a memory block, how large it is, when it dies.

`estimate` and `trace` both fill a Timeline; peaks, tables, pictures and the allocator replay are
plain functions over it.
"""

from collections import Counter
from typing import Literal, NamedTuple

CATEGORIES = (
    "weights",
    "quantization_state",
    "adapter",
    "gradients",
    "optimizer_states",
    "activations",
    "logits_loss",
    "workspace",
)

PHASES = ("load", "history", "forward", "backward", "optimizer")  # history: steps before the measured one


class Mark(NamedTuple):
    """Something that happens between two events: a phase begins, or the cache is emptied."""

    at: int  # index into Timeline.events: before the event of this number
    kind: Literal["phase", "phase_end", "empty_cache"]
    name: str = ""


class Timeline:
    """One row per memory block, in order of birth, and one stream of births and deaths.

    `events` holds row numbers: `row` where the block is born, `~row` (negative) where it dies.
    Columns are lists, since a step has 10⁴ rows and every tier fills them one by one.
    """

    __slots__ = ("categories", "events", "labels", "marks", "nbytes")

    def __init__(self) -> None:
        self.nbytes: list[int] = []  # requested bytes, before any rounding
        self.categories: list[str] = []  # one of CATEGORIES; may be settled after birth
        self.labels: list[tuple[str, str]] = []  # (module path, op)
        self.events: list[int] = []
        self.marks: list[Mark] = []

    def birth(self, nbytes: int, category: str, module: str, op: str) -> int:
        """Note a new block of `nbytes` > 0; returns its row."""
        row = len(self.nbytes)
        self.nbytes.append(nbytes)
        self.categories.append(category)
        self.labels.append((module, op))
        self.events.append(row)
        return row

    def death(self, row: int) -> None:
        """Note that the block of `row` is freed."""
        self.events.append(~row)

    def phase(self, name: str) -> None:
        """A phase begins here (and the one before it ends, if it has not ended yet)."""
        self.marks.append(Mark(len(self.events), "phase", name))

    def phase_end(self) -> None:
        """The current phase's level is read here; what dies until the next phase begins is the loop's dropping."""
        self.marks.append(Mark(len(self.events), "phase_end"))

    def empty_cache(self) -> None:
        """torch.cuda.empty_cache() happens here."""
        self.marks.append(Mark(len(self.events), "empty_cache"))

    def label(self, row: int) -> str:
        """A block's module path and op in one string."""
        module, op = self.labels[row]
        return f"{module}: {op}" if module else op

    def alive_at(self, at: int) -> list[int]:
        """Rows alive before event number `at`, in order of birth."""
        events = self.events[:at]
        dead = set(events)  # holds ~row of what has died
        return [row for row in range(max(events, default=-1) + 1) if ~row not in dead]

    def bytes_by_category(self, rows: list[int], sizes: list[int]) -> dict[str, int]:
        """`sizes` (one per row of the timeline) of `rows`, summed by category; every category has its key."""
        total: Counter[str] = Counter()
        for row in rows:
            total[self.categories[row]] += sizes[row]
        return {category: total[category] for category in CATEGORIES}
