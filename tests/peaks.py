"""What stands in memory at a peak: the blocks that explain a figure."""

import re
from collections import Counter
from collections.abc import Iterator

from memcalc.allocator import replay
from memcalc.timeline import Timeline
from memcalc.units import gib

_LARGEST = 8  # groups of blocks


def blocks_at_peak(timeline: Timeline, phase: str | None) -> Iterator[str]:
    """The largest blocks at the peak, or at a phase's; those of one size and label in all layers are one line."""
    sizes = replay(timeline).sizes
    groups: Counter[tuple[str, str, int]] = Counter()
    for row in timeline.alive_at(_event_of_peak(timeline, sizes, phase) + 1):
        groups[timeline.categories[row], re.sub(r"\.\d+\.", ".*.", timeline.label(row)), sizes[row]] += 1
    largest = sorted(groups.items(), key=lambda group: group[0][2] * group[1], reverse=True)[:_LARGEST]
    for (category, label, size), count in largest:
        yield f"- {gib(size * count)}: {count} × {size:,} B, {category}, {label}"


def _event_of_peak(timeline: Timeline, sizes: list[int], phase: str | None) -> int:
    """Number of the birth that reaches the peak of a phase, or of all but history."""
    begins = {mark.at: mark.name for mark in timeline.marks if mark.kind == "phase"}
    level = peak = at = 0
    current = ""
    for number, event in enumerate(timeline.events):
        current = begins.get(number, current)
        level += sizes[event] if event >= 0 else -sizes[~event]
        if level > peak and (current == phase if phase else current != "history"):
            peak, at = level, number
    return at
