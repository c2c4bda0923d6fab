"""Which layer's pass each event of a timeline belongs to: what lets one layer stand for many."""

from itertools import pairwise

from memcalc.timeline import Timeline


def sections(timeline: Timeline, layers: str, count: int) -> list[int | None]:
    """The layer in whose pass each event happens, or None outside of the `count` layers below the path `layers`.

    What dies belongs to the pass under way, the last birth's. Outside the layers, and where blocks of every layer die
    behind the last pass of a sweep, something lets go of all of them at once (a list of temporaries, gradients, a
    cache): each is its own layer's.
    """
    homes = layers_of(timeline, layers)
    events = timeline.events
    births = [at for at, event in enumerate(events) if event >= 0]
    ends, everyone = (0, count - 1), frozenset(range(count))
    result: list[int | None] = []
    for start, stop in pairwise([*births, len(events)]):
        running = homes[events[start]]
        result.append(running)
        if stop == start + 1:
            continue
        dead = [homes[~event] for event in events[start + 1 : stop]]
        apart = running is None or (running in ends and everyone.issubset(dead))
        result += dead if apart else [running] * len(dead)
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
