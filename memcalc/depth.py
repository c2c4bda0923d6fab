"""The peak of a model of any depth, from a timeline of three of its layers.

All layers but the first and the last do the same, so a pass over them is the middle layer's pass repeated: with a
net change D and a highest level H above its start, r passes reach max(0, (r - 1) D) + H and end r D higher. Nothing
is extrapolated: the result is the written-out run's, byte for byte.
"""

from itertools import pairwise

from memcalc.sections import sections
from memcalc.timeline import Timeline

DEPTH = 3  # layers to record: a first, a middle, a last
_MIDDLE = 1


def peak_at_depth(timeline: Timeline, layers: str, depth: int, round_to: int) -> int:
    """Highest sum of alive blocks, each rounded up to `round_to` bytes, with the middle layer `depth - 2` times.

    `layers` is the path of the repeated layers ("model.layers"); what happens in the phase "history" does not count.
    """
    sizes = [-(-nbytes // round_to) * round_to for nbytes in timeline.nbytes]
    homes = sections(timeline, layers, DEPTH)
    history = _history(timeline)
    repeats = depth - (DEPTH - 1)
    live = peak = 0
    change = highest = 0  # of the pass over the middle layer under way
    inside = False
    for at, (event, home) in enumerate(zip(timeline.events, homes, strict=True)):
        step = sizes[event] if event >= 0 else -sizes[~event]
        if home == _MIDDLE:
            if not inside:
                inside, change, highest = True, 0, 0
            change += step
            highest = max(highest, change)
            continue
        if inside:
            inside = False
            if at not in history:
                peak = max(peak, live + max(0, (repeats - 1) * change) + highest)
            live += repeats * change
        live += step
        if live > peak and at not in history:
            peak = live
    return peak


def _history(timeline: Timeline) -> range:
    """Events of the phase "history"."""
    bounds = [(mark.at, mark.name) for mark in timeline.marks if mark.kind == "phase"]
    for (start, name), (stop, _) in pairwise(bounds):
        if name == "history":
            return range(start, stop)
    return range(0)
