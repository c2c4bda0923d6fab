"""Levers as people read them in a terminal: what each leaves and saves, what it is paid with, how it is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from memcalc.reporting.console import heading, printable
from memcalc.units import gib

if TYPE_CHECKING:
    from memcalc.footprint import Footprint
    from memcalc.planning.advice import Advice
    from memcalc.planning.levers import Effect

_BAR = 24  # columns of the widest bar


def waterfall(base: "Footprint", effects: "list[Effect]", gpu: str | None) -> Text:
    """The workload as it is, then each lever pulled alone: solid what it leaves, light what it saves.

    `gpu`: mark those with which it fits there.
    """
    return Text("\n").join([*heading(base), Text(), *_rows(base, effects, gpu)])


def _rows(base: "Footprint", effects: "list[Effect]", gpu: str | None) -> Iterator[Text]:
    widest = max(footprint.held for footprint in (base, *(effect.footprint for effect in effects)))
    yield Text(f"{'One change at a time':<32}{'reserved':>11}{'saves':>12}", style="bold")
    yield _row("as it is", base.held, None, _bar(base.held, base.held, widest), _fits(base, gpu))
    for effect in effects:
        level = effect.footprint.held
        bar = _bar(level, base.held, widest)
        yield _row(effect.lever.name, level, effect.saved, bar, _fits(effect.footprint, gpu))
        yield _how(effect)


def advice(ways: "Advice", gpu: str) -> Text:
    """What would make it fit, beneath a verdict that it does not."""
    return Text("\n").join(_advice(ways, gpu))


def _advice(ways: "Advice", gpu: str) -> Iterator[Text]:
    if ways.together:
        yield Text("These changes together make it fit:", style="bold")
        for effect in ways.together:
            yield from _step(effect, effect.footprint.margin(gpu))
    if ways.singles:
        title = "Or one of these alone" if ways.together else "One of these changes makes it fit"
        yield Text(f"{title}, the cheapest first:", style="bold")
        for effect in ways.singles:
            yield from _step(effect, effect.footprint.margin(gpu))
    if not (ways.singles or ways.together):
        short = gib(-ways.smallest.margin(gpu))
        yield Text(f"No combination of levers that estimate knows makes it fit: the least is still {short} too much")


def _step(effect: "Effect", spare: int) -> Iterator[Text]:
    after = f"{gib(spare)} to spare" if spare >= 0 else f"{gib(-spare)} too much"
    yield Text(f"  {effect.lever.name:<32}{gib(effect.footprint.held):>11}  {after}")
    yield _how(effect)


def _row(name: str, level: int, saved: int | None, bar: Text, fits: str) -> Text:
    change = "" if saved is None else f"{'-' if saved > 0 else '+'}{gib(abs(saved))}" if saved else "nothing"
    return Text(f"{name:<32}{gib(level):>11}{change:>12}  ").append(bar).append(fits)


def _how(effect: "Effect") -> Text:
    return Text(printable(f"    {effect.flags} · {effect.lever.price}: {effect.lever.costs}"), style="dim")


def _bar(level: int, base: int, widest: int) -> Text:
    """Solid up to the lower of two levels, then light up to the base, or dark beyond it."""
    kept, reach = (round(min(level, base) / widest * _BAR), round(max(level, base) / widest * _BAR))
    return Text("█" * kept, style="cyan").append(("░" if level <= base else "▓") * (reach - kept))


def _fits(footprint: "Footprint", gpu: str | None) -> str:
    return " fits" if gpu is not None and footprint.fits(gpu) else ""
