"""Pictures of how far predictions are off."""

from typing import TYPE_CHECKING, Any

from memcalc.reporting.cases import PEAKS, Case
from memcalc.reporting.looks import GREY, SERIES, ink
from memcalc.reporting.summary import error
from memcalc.units import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BANDS = ((0.05, 0.16), (0.01, 0.26))  # an error, and how dark its band is
_DECADES = 300  # ends of an axis further apart than this leave no room for 2 and 5
_SHORTEST = 1.2  # of the axes of sizes: at least so much beyond the points


def errors(figure: "Figure", cases: list[Case]) -> None:
    """Predicted against measured, and the errors alone, which no band of 1 % shows over decades of sizes."""
    left, right = figure.subplots(1, 2)
    points = _points(cases)
    sizes = [value for _, _, measured, said in points for value in (measured, said)]
    low, high = min(sizes) / GIB / _SHORTEST, max(sizes) / GIB * _SHORTEST
    for band, alpha in _BANDS:
        ends = [low, high]
        label = f"± {band:.0%}"
        left.fill_between(
            ends, [x * (1 - band) for x in ends], [x * (1 + band) for x in ends], **_band(alpha), label=label
        )
        right.axhspan(-100 * band, 100 * band, **_band(alpha), label=label)
    for at, source in enumerate(dict.fromkeys(source for source, *_ in points)):
        colour, marker = SERIES[at % len(SERIES)]
        for name, filled in zip(PEAKS, (True, False), strict=True):
            mine = [(m / GIB, p / GIB) for s, each, m, p in points if (s, each) == (source, name)]
            if not mine:
                continue
            style = {
                "color": colour if filled else "none",
                "edgecolors": colour,
                "marker": marker,
                "s": 42,
                "zorder": 3,
            }
            label = f"{source}, {name.removeprefix('peak ')}"
            left.scatter([m for m, _ in mine], [p for _, p in mine], **style, label=label)
            right.scatter([m for m, _ in mine], [100 * (p / m - 1) for m, p in mine], **style, label=label)
    _sized(left, low, high)
    left.set(ylim=(low, high), yscale="log", xlabel="measured, GiB", ylabel="predicted by estimate, GiB")
    left.plot([low, high], [low, high], color=ink(left), linewidth=0.8, zorder=2)
    _plain_ticks(left)
    left.set_title("Predicted against measured peaks", loc="left")
    _sized(right, low, high)
    right.axhline(0, color=ink(right), linewidth=0.8)
    right.set(xlabel="measured, GiB", ylabel="error of the prediction, %")
    right.set_title("How far off", loc="left")
    _plain_ticks(right)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)


def methods(figure: "Figure", cases: list[Case]) -> None:
    """The signed error of every peak, a line to each method."""
    axes = figure.subplots()
    names = sorted({case.method for case in cases if any(case.figure(peak) for peak in PEAKS)}, reverse=True)
    for band, alpha in _BANDS:
        axes.axvspan(-100 * band, 100 * band, **_band(alpha), label=f"± {band:.0%}")
    for peak, (colour, marker), shift in zip(PEAKS, SERIES, (0.12, -0.12), strict=False):
        points = [(case.method, each) for case in cases if (each := case.figure(peak)) is not None]
        known = [
            (names.index(method) + shift, 100 * off)
            for method, each in points
            if (off := error(each.measured, each.estimate)) is not None
        ]
        if known:
            axes.scatter(
                [off for _, off in known], [y for y, _ in known], color=colour, marker=marker, s=40, label=peak
            )
    axes.axvline(0, color=ink(axes), linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("error of the prediction, %; a point to each row")
    axes.legend(loc="best", fontsize=8)
    axes.grid(visible=True, axis="y", linewidth=0.5)
    axes.set_axisbelow(True)


def _points(cases: list[Case]) -> list[tuple[str, str, int, int]]:
    """Source, figure, measured and estimated bytes of every peak that is not nothing."""
    return [
        (case.row.source, name, each.measured, each.estimate)
        for case in cases
        for name in PEAKS
        if (each := case.figure(name)) is not None and each.measured and each.estimate
    ]


def _band(alpha: float) -> dict[str, Any]:
    return {"color": GREY, "alpha": alpha, "linewidth": 0}


def _sized(axes: "Axes", low: float, high: float) -> None:
    axes.set(xlim=(low, high), xscale="log")
    axes.grid(visible=True, which="major", linewidth=0.5)
    axes.set_axisbelow(True)


def _plain_ticks(axes: "Axes") -> None:
    """Sizes as people write them: 2, 5, 10 GiB, not powers of ten; over many decades, one tick to each."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _DECADES * low else (1,), numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
