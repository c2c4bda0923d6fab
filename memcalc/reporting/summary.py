"""How far predictions are off, over many figures. Errors are relative: predicted / measured - 1."""

from collections.abc import Callable, Iterable, Iterator
from statistics import StatisticsError, correlation, fmean, median
from typing import NamedTuple

from memcalc.reporting.cases import PEAKS, Case, Figure


class Accuracy(NamedTuple):
    """Over so many figures: absolute errors, their mean with its sign, and Pearson's r of the two columns of bytes."""

    figures: int
    mean: float
    median: float
    worst: float
    bias: float
    correlation: float | None  # None: fewer than three figures, or all the same


class Group(NamedTuple):
    """Figures that have one property in common."""

    property: str  # "method"
    value: str  # "qlora"
    figure: str  # "peak allocated"
    accuracy: Accuracy


def error(measured: int, predicted: int | None) -> float | None:
    """Relative to the measurement; None where there is no prediction, or nothing to divide by."""
    if predicted is None:
        return None
    if measured == 0:
        return 0.0 if predicted == 0 else None
    return predicted / measured - 1


def accuracy(pairs: Iterable[tuple[int, int]]) -> Accuracy | None:
    """Of (measured, predicted); None where no error can be told."""
    known = [(measured, said, off) for measured, said in pairs if (off := error(measured, said)) is not None]
    if not known:
        return None
    sizes = [abs(off) for _, _, off in known]
    return Accuracy(
        len(known), fmean(sizes), median(sizes), max(sizes), fmean(off for *_, off in known), _correlation(known)
    )


def _correlation(known: list[tuple[int, int, float]]) -> float | None:
    if len(known) < 3:
        return None
    try:
        return correlation([measured for measured, *_ in known], [said for _, said, _ in known])
    except StatisticsError:  # a column is constant
        return None


def overall(cases: list[Case]) -> list[Group]:
    """A group for each kind of figure in bytes, by where it was measured."""
    return [
        group for place in ("GPU", "CPU") for group in _overall([case for case in cases if case.place == place], place)
    ]


def _overall(cases: list[Case], place: str) -> Iterator[Group]:
    yield from _of("measured on", lambda _: place, cases, PEAKS)
    more = {
        "each phase's levels": accuracy(_pairs(cases, lambda figure: figure.group == "phase")),
        "categories at the peak": accuracy(_pairs(cases, lambda figure: figure.group == "category")),
        **{f"{peak}, trace": accuracy(_traced(cases, peak)) for peak in PEAKS},
    }
    yield from (Group("measured on", place, name, each) for name, each in more.items() if each is not None)


def by_property(cases: list[Case]) -> list[Group]:
    """The peaks' errors by source, method, family and precision; the phases' by phase."""
    properties: dict[str, Callable[[Case], str]] = {
        "source": lambda case: case.row.source,
        "method": lambda case: case.method,
        "family": lambda case: case.family,
        "precision": lambda case: case.precision,
    }
    groups = [group for name, of in properties.items() for group in _of(name, of, cases, PEAKS)]
    phases = dict.fromkeys(each.name for case in cases for each in case.figures if each.group == "phase")
    return [*groups, *(group._replace(value=group.figure) for group in _of("phase", lambda _: "", cases, phases))]


def _of(name: str, of: Callable[[Case], str], cases: list[Case], figures: Iterable[str]) -> list[Group]:
    return list(_groups(name, of, cases, list(figures)))


def _groups(name: str, of: Callable[[Case], str], cases: list[Case], figures: list[str]) -> Iterator[Group]:
    for value in sorted({of(case) for case in cases}):
        mine = [case for case in cases if of(case) == value]
        for figure in figures:
            known = accuracy(_pairs(mine, lambda each, wanted=figure: each.name == wanted))  # type: ignore[misc]
            if known is not None:
                yield Group(name, value, figure, known)


def _traced(cases: list[Case], name: str) -> Iterator[tuple[int, int]]:
    for each in (figure for case in cases for figure in case.figures if figure.name == name):
        if each.trace is not None:
            yield each.measured, each.trace


def _pairs(cases: list[Case], wanted: Callable[[Figure], bool]) -> Iterator[tuple[int, int]]:
    for case in cases:
        for each in case.figures:
            if wanted(each) and each.estimate is not None:
                yield each.measured, each.estimate
