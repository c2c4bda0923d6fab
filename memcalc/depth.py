"""The peak of a model of any depth, from a timeline of three of its layers.

All layers but the first and the last do the same, so a pass over them is the middle layer's pass repeated: with a
net change D and a highest level H above its start, r passes reach max(0, (r - 1) D) + H and end r D higher. Nothing
is extrapolated: the result is the written-out run's, byte for byte.
"""

from collections import Counter
from itertools import accumulate, groupby, pairwise

from memcalc.sections import layers_of, runs_of, sections
from memcalc.timeline import Timeline

DEPTH = 3  # layers to record: a first, a middle, a last
_MIDDLE = 1


def peak_at_depth(timeline: Timeline, layers: str, depth: int, round_to: int) -> int | None:
    """Highest sum of alive blocks, each rounded up to `round_to` bytes, with the middle layer `depth - 2` times.

    `layers` is the path of the repeated layers ("model.layers"); what happens in the phase "history" does not count.
    None where the middle layer does not stand for others.
    """
    sizes = [-(-nbytes // round_to) * round_to for nbytes in timeline.nbytes]
    steps = [sizes[event] if event >= 0 else -sizes[~event] for event in timeline.events]
    homes = sections(timeline, layers, DEPTH)
    if not _stands_for_others(timeline, layers, homes):
        return None
    history = _history(timeline)
    live = peak = at = 0
    for until, counts in ((history.start, True), (history.stop, False), (len(steps), True)):
        for home, run in groupby(homes[at:until]):
            start, at = at, at + sum(1 for _ in run)
            changes = steps[start:at]
            change, passes = sum(changes), depth - (DEPTH - 1) if home == _MIDDLE else 1
            if counts:
                peak = max(peak, live + max(0, (passes - 1) * change) + max(accumulate(changes)))
            live += passes * change
    return peak


def _stands_for_others(timeline: Timeline, layers: str, passes: list[int | None]) -> bool:
    """Whether the middle layer's pass, behind the first's, frees of it what the last one's frees of the middle layer,
    and nothing that belongs to no layer.

    It does not where a first layer, whose input needs no gradient, leaves what others keep for backward: a block of
    its own, or one that all share (cosines), whose last holder is the second layer then.
    """
    homes = layers_of(timeline, layers)
    runs = runs_of(passes)
    if any(homes[row] is None for layer, events in runs if layer == _MIDDLE for row in _dead(timeline, events)):
        return False
    for sweep in zip(runs, runs[1:], runs[2:], strict=False):
        if [layer for layer, _ in sweep] == list(range(DEPTH)):
            middle, last = (
                Counter(_kind(timeline, row) for row in _dead(timeline, events) if homes[row] == layer - 1)
                for layer, events in ((1, sweep[1][1]), (2, sweep[2][1]))
            )
            if middle != last:
                return False
    return True


def _dead(timeline: Timeline, events: list[int]) -> list[int]:
    return [~timeline.events[at] for at in events if timeline.events[at] < 0]


def _kind(timeline: Timeline, row: int) -> tuple[str, int]:
    return timeline.labels[row][1], timeline.nbytes[row]


def _history(timeline: Timeline) -> range:
    """Events of the phase "history"."""
    bounds = [(mark.at, mark.name) for mark in timeline.marks if mark.kind == "phase"]
    for (start, name), (stop, _) in pairwise(bounds):
        if name == "history":
            return range(start, stop)
    return range(0)
