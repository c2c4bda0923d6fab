"""What makes a run fit on its GPU: the cheapest single changes, and a combination of still cheaper ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from memcalc.footprint import Footprint
from memcalc.planning.levers import LEVERS, PRICES, Effect, Lever, pulled
from memcalc.workload import Workload


def _price(lever: Lever) -> int:
    return PRICES.index(lever.price)


_held = attrgetter("held")
_CHEAPEST_FIRST = sorted(LEVERS, key=_price)


@dataclass(frozen=True)
class Advice:
    """Ways to fit, each estimated."""

    singles: tuple[Effect, ...]  # changes that are enough alone, the cheapest first, each lever as mild as is enough
    together: tuple[Effect, ...]  # cheaper than any of those: changes in their order; after the last it fits
    smallest: Footprint  # the least that was reached


def advise(w: Workload, base: Footprint) -> Advice:
    """How a workload that does not fit on its GPU could.

    A combination takes levers that are cheaper than any that is enough alone, from the cheapest on, and lets go of
    those that it turns out not to need. Raises InvalidWorkload on the CPU, which has nothing to fit on.
    """
    gpu = str(base.workload["gpu"])
    singles: list[Effect] = []
    smallest = base
    for lever in _CHEAPEST_FIRST:
        for effect in pulled(w, base, lever):
            smallest = min(smallest, effect.footprint, key=_held)
            if effect.footprint.fits(gpu):
                singles.append(effect)
                break
    dearest = _price(singles[0].lever) if singles else len(PRICES)
    taken = _taken(w, base, gpu, [lever for lever in _CHEAPEST_FIRST if _price(lever) < dearest])
    smallest = min((smallest, *(effect.footprint for effect in taken)), key=_held)
    enough = bool(taken) and taken[-1].footprint.fits(gpu)
    return Advice(tuple(singles), tuple(_needed(w, base, taken, gpu)) if enough else (), smallest)


def _taken(w: Workload, base: Footprint, gpu: str, levers: Iterable[Lever]) -> list[Effect]:
    """Levers in this order, each as far as it saves, until it fits."""
    taken: list[Effect] = []
    for lever in levers:
        best: Effect | None = None
        for effect in pulled(w, base, lever):
            if effect.saved > (0 if best is None else best.saved):
                best = effect
            if effect.footprint.fits(gpu):
                break
        if best is None:
            continue
        taken.append(best)
        w, base = best.workload, best.footprint
        if base.fits(gpu):
            break
    return taken


def _needed(w: Workload, base: Footprint, taken: list[Effect], gpu: str) -> list[Effect]:
    """Those of the changes without which it does not fit; the first to be let go is the dearest before the last."""
    kept = taken
    for effect in reversed(taken[:-1]):
        again = _made(w, base, [other for other in kept if other.options != effect.options])
        if again and again[-1].footprint.fits(gpu):
            kept = again
    return kept


def _made(w: Workload, base: Footprint, changes: list[Effect]) -> list[Effect]:
    """The same changes one after the other, from the start; none where one of them is no longer there to make."""
    made: list[Effect] = []
    for change in changes:
        step = next((each for each in pulled(w, base, change.lever) if each.options == change.options), None)
        if step is None:
            return []
        made.append(step)
        w, base = step.workload, step.footprint
    return made
