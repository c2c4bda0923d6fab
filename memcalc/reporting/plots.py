"""Pictures. matplotlib is imported where one is drawn; a file's ending decides its format."""

from typing import TYPE_CHECKING, Any, Literal

from memcalc.allocator import Replay
from memcalc.errors import BadFile, MissingPackage
from memcalc.reporting.console import category_name
from memcalc.reporting.looks import CATEGORY_COLOURS, ink
from memcalc.timeline import CATEGORIES, Timeline
from memcalc.units import GIB, gib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 2000  # along the axis: no screen has more columns
_LABEL = 0.08  # of the axis: what a phase's name takes


def save_timeline(path: str, timeline: Timeline, played: Replay, title: str) -> None:
    """Write `memory_over_time` to a file. Raises BadFile where that cannot be, MissingPackage without matplotlib."""
    figure, axes = _figure(11.0, 5.0)
    memory_over_time(axes, timeline, played)
    axes.set_title(title, loc="left", fontsize=10)
    try:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    except OSError as error:
        raise BadFile(path, f"cannot be written: {error.strerror or error}") from None
    except ValueError as error:  # a format that matplotlib does not know
        raise BadFile(path, str(error).splitlines()[0]) from None


def memory_over_time(axes: "Axes", timeline: Timeline, played: Replay) -> None:
    """What is allocated, by category, from the first block to the last; the phases, and where the peak stands."""
    at, levels = _sampled(timeline, played)
    axes.stackplot(
        at,
        [[level / GIB for level in levels[category]] for category in CATEGORIES],
        labels=[category_name(category) for category in CATEGORIES],
        colors=[CATEGORY_COLOURS[category] for category in CATEGORIES],
        step="post",
        linewidth=0,
    )
    top = played.peak_allocated / GIB * 1.12
    before, row = -1.0, 0
    for mark in timeline.marks:
        if mark.kind == "phase":
            axes.axvline(mark.at, color=ink(axes), linewidth=0.6, alpha=0.5)
            place = mark.at / max(1, len(timeline.events))
            row = row + 1 if place - before < _LABEL else 0  # a short phase's name has the next one's beneath it
            side: Literal["right", "left"] = "right" if place > 1 - _LABEL else "left"
            axes.text(mark.at, top * (1 - 0.04 * row), f" {mark.name} ", fontsize=8, va="top", ha=side)
            before = place
    if played.peak_at is not None:
        axes.plot(played.peak_at, played.peak_allocated / GIB, "v", color=ink(axes), markersize=5)
        late = played.peak_at > 0.85 * len(timeline.events)  # no room to its right
        axes.annotate(
            f"peak {gib(played.peak_allocated)}",
            (played.peak_at, played.peak_allocated / GIB),
            xytext=(-4 if late else 4, 4),
            ha="right" if late else "left",
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_ylim(0, top)
    axes.set_xlim(0, max(len(timeline.events), 1))
    axes.set_xlabel("births and deaths of memory blocks, in order")
    axes.set_ylabel("allocated, GiB")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _sampled(timeline: Timeline, played: Replay) -> tuple[list[int], dict[str, list[int]]]:
    """Levels by category after every n-th event, and at the peak itself."""
    stride = max(1, len(timeline.events) // _POINTS)
    now = dict.fromkeys(CATEGORIES, 0)
    at, levels = [0], {category: [0] for category in CATEGORIES}
    for number, event in enumerate(timeline.events):
        row = event if event >= 0 else ~event
        now[timeline.categories[row]] += played.sizes[row] if event >= 0 else -played.sizes[row]
        if number % stride == 0 or number == played.peak_at:
            at.append(number)
            for category, level in now.items():
                levels[category].append(level)
    return at, levels


def _figure(width: float, height: float) -> tuple[Any, "Axes"]:
    """A figure that no window shows."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackage("matplotlib", "report") from None
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()
