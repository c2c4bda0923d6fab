"""Pictures of what a peak is made of, and of what it becomes with the batch and the length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from memcalc.footprint import Footprint
from memcalc.reporting.cases import Case
from memcalc.reporting.console import category_name
from memcalc.reporting.looks import BLUE, CATEGORY_COLOURS, ORANGE, VERMILLION, ink
from memcalc.units import GIB, gib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24  # bars that one picture holds
_LONGEST = 56  # characters of a name beside a bar


class Bar(NamedTuple):
    """One case in the picture of categories."""

    case: Case
    estimate: Footprint
    measured: int
    what: str  # allocated, or reserved where nothing else was measured


def bars(cases: list[Case]) -> list[Bar]:
    """The cases that can be drawn, the largest first, at most MOST."""
    found = [bar for case in cases if (bar := _bar(case)) is not None]
    return sorted(found, key=lambda bar: -bar.measured)[:MOST]


def _bar(case: Case) -> Bar | None:
    if isinstance(case.estimate, Footprint) and case.estimate.at_peak:
        for what in ("allocated", "reserved"):
            figure = case.figure(f"peak {what}")
            if figure is not None and figure.measured:
                return Bar(case, case.estimate, figure.measured, what)
    return None


def categories(figure: "Figure", drawn: list[Bar]) -> None:
    """Stacked categories of the predicted peak as shares of the measured total, which is a line at 100 %."""
    axes = figure.subplots()
    lefts = [0.0] * len(drawn)
    rows = range(len(drawn))
    for category, colour in CATEGORY_COLOURS.items():
        widths = [100 * (bar.estimate.at_peak or {}).get(category, 0) / bar.measured for bar in drawn]
        if any(widths):
            axes.barh(rows, widths, left=lefts, color=colour, height=0.72, label=category_name(category))
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    kept = [_kept(bar) for bar in drawn]
    if any(kept):
        some = [at for at in rows if kept[at]]
        axes.barh(
            some, [kept[at] for at in some], left=[lefts[at] for at in some], color="none", edgecolor=ink(axes),
            hatch="////", linewidth=0.6, height=0.72, label="kept for reuse (reserved)",
        )  # fmt: skip
    axes.axvline(100, color=ink(axes), linewidth=1.5, label="measured")
    axes.set_yticks(rows, [_label(bar) for bar in drawn], fontsize=7)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel("share of the measured peak, %")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)


def _kept(bar: Bar) -> float:
    """What is reserved beyond what is allocated, as a share, where reserved is what was measured."""
    if bar.what != "reserved":
        return 0.0
    return 100 * ((bar.estimate.peak_reserved or 0) - sum((bar.estimate.at_peak or {}).values())) / bar.measured


def _label(bar: Bar) -> str:
    case = bar.case
    name = case.row.name if len(case.row.name) <= _LONGEST else f"{case.row.name[: _LONGEST - 1]}…"
    return f"{name}: {gib(bar.measured)} {bar.what}\n{case.model}, {case.method}, {case.precision}, {case.size}"


class Curve(NamedTuple):
    """Estimates along one option, and what was measured there."""

    option: str  # "micro-batch, sequences"
    estimates: Sequence[tuple[int, Footprint]]
    measured: Sequence[tuple[int, Footprint]]


def ranges(figure: "Figure", curves: Sequence[Curve], limit: int | None, card: str) -> None:
    """Allocated and reserved memory along each curve, with the card's memory as a line."""
    for axes, curve in zip(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves, strict=True):
        _curve(axes, curve)
        if limit is not None:
            axes.axhline(limit / GIB, color=VERMILLION, linestyle="--", linewidth=1.5, label=f"{card}, {gib(limit)}")
        axes.set_xlabel(curve.option)
        axes.set_xscale("log", base=2)
        ticks = [value for value, _ in curve.estimates]
        axes.set_xticks(ticks, [f"{value:,}" for value in ticks], fontsize=8)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, linewidth=0.5)
        axes.set_axisbelow(True)
    figure.axes[0].set_ylabel("peak, GiB")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)


def _curve(axes: "Axes", curve: Curve) -> None:
    for level, colour, marker in (("peak_reserved", ORANGE, "s"), ("peak_allocated", BLUE, "o")):
        name = level.removeprefix("peak_")
        said = [(at, getattr(each, level) / GIB) for at, each in curve.estimates if getattr(each, level) is not None]
        seen = [(at, getattr(each, level) / GIB) for at, each in curve.measured if getattr(each, level) is not None]
        axes.plot(
            [at for at, _ in said],
            [y for _, y in said],
            color=colour,
            marker=".",
            linewidth=1.5,
            label=f"{name}, estimate",
        )
        if seen:
            axes.plot(
                [at for at, _ in seen], [y for _, y in seen], marker, markersize=9, markerfacecolor="none",
                color=ink(axes), markeredgewidth=1.5, label=f"{name}, measured", zorder=4,
            )  # fmt: skip
