"""The peak of a model of any depth, from a timeline of three of its layers.

All layers but the first and the last do the same, so a pass over them is the middle layer's pass repeated: with a
net change D and a highest level H above its start, r passes reach max(0, (r - 1) D) + H and end r D higher. Nothing
is extrapolated: the result is the written-out run's, byte for byte.
"""

from collections import Counter
from itertools import pairwise

from memcalc.timeline import Timeline

DEPTH = 3  # layers to record: a first, a middle, a last
_MIDDLE = 1


def peak_at_depth(timeline: Timeline, layers: str, depth: int, round_to: int) -> int:
    """Highest sum of alive blocks, each rounded up to `round_to` bytes, with the middle layer `depth - 2` times.

    `layers` is the path of the repeated layers ("model.layers"); what happens in the phase "history" does not count.
    """
    repeats = depth - (DEPTH - 1)
    live = peak = 0
    change = highest = 0  # of the pass over the middle layer under way
    inside = False
    for change_by, home, counts in _changes(timeline, f"{layers}.", round_to):
        if home == _MIDDLE:
            if not inside:
                inside, change, highest = True, 0, 0
            change += change_by
            highest = max(highest, change)
            continue
        if inside:
            inside = False
            if counts:
                peak = max(peak, live + max(0, (repeats - 1) * change) + highest)
            live += repeats * change
        live += change_by
        if counts and live > peak:
            peak = live
    return peak


def _changes(timeline: Timeline, prefix: str, round_to: int) -> list[tuple[int, int | None, bool]]:
    """Every event as (bytes, layer in whose pass it happens or None, whether it counts for the peak).

    What dies belongs to the pass under way, the last birth's. Outside the layers, and where as many blocks of each
    layer die between two births, something lets go of all of them at once (a list of temporaries, gradients, a
    cache): each is its own layer's.
    """
    sizes = [-(-nbytes // round_to) * round_to for nbytes in timeline.nbytes]
    homes = [_layer(module, prefix) for module, _ in timeline.labels]
    births = [at for at, event in enumerate(timeline.events) if event >= 0]
    history = _history(timeline)
    changes: list[tuple[int, int | None, bool]] = []
    for start, stop in pairwise([*births, len(timeline.events)]):
        born, *dead = timeline.events[start:stop]
        running, counts = homes[born], start not in history
        changes.append((sizes[born], running, counts))
        of_layers = Counter(homes[~event] for event in dead)
        apart = running is None or len({of_layers[layer] for layer in range(DEPTH)}) == 1
        changes += [(-sizes[~event], homes[~event] if apart else running, counts) for event in dead]
    return changes


def _history(timeline: Timeline) -> range:
    """Events of the phase "history"."""
    bounds = [(mark.at, mark.name) for mark in timeline.marks if mark.kind == "phase"]
    for (start, name), (stop, _) in pairwise(bounds):
        if name == "history":
            return range(start, stop)
    return range(0)


def _layer(module: str, prefix: str) -> int | None:
    """Which layer a module belongs to, or None."""
    if not module.startswith(prefix):
        return None
    return int(module[len(prefix) :].partition(".")[0])
