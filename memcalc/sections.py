"""Which layer's pass each event of a timeline belongs to: what lets one layer stand for many."""

from itertools import groupby, islice, takewhile

from memcalc.timeline import Timeline

Run = tuple[int | None, list[int]]  # a layer, or None, and the numbers of the events of one pass over it


def sections(timeline: Timeline, layers: str, count: int) -> list[int | None]:
    """The layer in whose pass each event happens, or None outside of the `count` layers below the path `layers`.

    What dies belongs to the pass under way, the last birth's. Outside the layers, and where blocks of every layer die
    behind the last pass of a sweep, something lets go of all of them at once (a list of temporaries, gradients, a
    cache): each is its own layer's.
    """
    homes = layers_of(timeline, layers)
    ends, everyone = (0, count - 1), frozenset(range(count))
    result: list[int | None] = []
    mixed: dict[int, None] = {}  # births in a first or last layer behind which another layer's block dies
    running, born = None, 0
    for at, event in enumerate(timeline.events):
        if event >= 0:
            running, born = homes[event], at
            result.append(running)
            continue
        home = homes[~event]
        result.append(home if running is None else running)
        if home != running and running in ends:
            mixed[born] = None
    for born in mixed:
        dead = [homes[~event] for event in takewhile((0).__gt__, islice(timeline.events, born + 1, None))]
        if everyone.issubset(dead):
            result[born + 1 : born + 1 + len(dead)] = dead
    return result


def layers_of(timeline: Timeline, layers: str) -> list[int | None]:
    """The layer that each row's module belongs to, or None."""
    prefix = f"{layers}."
    known: dict[str, int | None] = {}
    homes: list[int | None] = []
    for module, _ in timeline.labels:
        if module not in known:
            known[module] = int(module[len(prefix) :].partition(".")[0]) if module.startswith(prefix) else None
        homes.append(known[module])
    return homes


def runs_of(passes: list[int | None]) -> list[Run]:
    """What `sections` says of each event, by unbroken passes."""
    return [(layer, list(events)) for layer, events in groupby(range(len(passes)), passes.__getitem__)]
