"""Two timelines side by side: the oracle's voice.

Two streams are identical when their births agree in order and bytes, and when between any two births
the same blocks die, the same phases begin and end and the cache is emptied as often. The order of deaths inside
such a gap is the order of C++ destructors; it cannot change what an allocator does with the next request, so it is
not compared.
"""

from dataclasses import dataclass
from itertools import accumulate

from memcalc.timeline import Timeline
from memcalc.units import gib

_CONTEXT = 4  # births shown before and after the first difference


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two streams part, in words, with the births around it."""

    summary: str
    context: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((self.summary, *self.context))


def first_difference(left: Timeline, right: Timeline, names: tuple[str, str] = ("left", "right")) -> Difference | None:
    """None where the streams are identical block by block; else the first difference."""
    left_deaths, right_deaths = _deaths_by_gap(left), _deaths_by_gap(right)
    left_marks, right_marks = _marks_by_gap(left), _marks_by_gap(right)
    births = max(len(left.nbytes), len(right.nbytes))
    for row in range(births + 1):
        dead_left, dead_right = left_deaths.get(row, frozenset()), right_deaths.get(row, frozenset())
        if dead_left != dead_right:
            return _death_difference(row, dead_left, dead_right, left, right, names)
        marks = left_marks.get(row, []), right_marks.get(row, [])
        if marks[0] != marks[1]:
            words = [f"{name} {', '.join(said) or 'nothing'}" for name, said in zip(names, marks, strict=True)]
            return Difference(f"before birth {row}: {', '.join(words)}", _around(row, left, right, names))
        if row == births:
            break
        size_left = left.nbytes[row] if row < len(left.nbytes) else None
        size_right = right.nbytes[row] if row < len(right.nbytes) else None
        if size_left != size_right:
            summary = f"birth {row}: {names[0]} {_block(left, row)}, {names[1]} {_block(right, row)}"
            return Difference(summary, _around(row, left, right, names))
    return None


def only_on_one_side(left: Timeline, right: Timeline, at_birth: int) -> tuple[list[str], list[str]]:
    """Blocks alive just before birth number `at_birth` on one side only, matched by size, with labels."""
    sides = []
    for timeline in (left, right):
        sizes: dict[int, list[int]] = {}
        for row in timeline.alive_at(_event_of_birth(timeline, at_birth)):
            sizes.setdefault(timeline.nbytes[row], []).append(row)
        sides.append(sizes)
    extra: tuple[list[str], list[str]] = ([], [])
    for size in sorted(sides[0].keys() | sides[1].keys(), reverse=True):
        counts = [sides[0].get(size, []), sides[1].get(size, [])]
        for side, timeline in enumerate((left, right)):
            surplus = len(counts[side]) - len(counts[1 - side])
            extra[side].extend(_block(timeline, row) for row in counts[side][-surplus:] if surplus > 0)
    return extra


def _deaths_by_gap(timeline: Timeline) -> dict[int, frozenset[int]]:
    """Rows that die after birth number n-1 and before birth number n, by n."""
    gaps: dict[int, set[int]] = {}
    births = 0
    for event in timeline.events:
        if event >= 0:
            births += 1
        else:
            gaps.setdefault(births, set()).add(~event)
    return {gap: frozenset(rows) for gap, rows in gaps.items()}


def _marks_by_gap(timeline: Timeline) -> dict[int, list[str]]:
    """What happens after birth number n-1 and before birth number n, in words, by n."""
    gaps: dict[int, list[str]] = {}
    births = list(accumulate((event >= 0 for event in timeline.events), initial=0))
    for mark in timeline.marks:
        gaps.setdefault(births[mark.at], []).append(f"{mark.kind} {mark.name}".rstrip())
    return gaps


def _event_of_birth(timeline: Timeline, row: int) -> int:
    return timeline.events.index(row) if row < len(timeline.nbytes) else len(timeline.events)


def _block(timeline: Timeline, row: int) -> str:
    if row >= len(timeline.nbytes):
        return "nothing"
    return f"{timeline.nbytes[row]:,} B ({gib(timeline.nbytes[row])}) {timeline.label(row)}"


def _death_difference(
    row: int,
    dead_left: frozenset[int],
    dead_right: frozenset[int],
    left: Timeline,
    right: Timeline,
    names: tuple[str, str],
) -> Difference:
    parts = []
    for name, timeline, rows in ((names[0], left, dead_left - dead_right), (names[1], right, dead_right - dead_left)):
        if rows:
            blocks = "; ".join(f"#{dead} {_block(timeline, dead)}" for dead in sorted(rows)[:6])
            parts.append(f"only {name} frees {blocks}")
    return Difference(f"before birth {row}: {', '.join(parts)}", _around(row, left, right, names))


def _around(row: int, left: Timeline, right: Timeline, names: tuple[str, str]) -> tuple[str, ...]:
    lines = []
    for near in range(max(0, row - _CONTEXT), row + _CONTEXT + 1):
        pointer = "→" if near == row else " "
        lines.append(f"{pointer} {near:6}  {names[0]}: {_block(left, near):70}  {names[1]}: {_block(right, near)}")
    return tuple(lines)
