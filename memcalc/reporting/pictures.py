"""Which pictures a report has, and of which cases."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from memcalc.allocator import Replay
from memcalc.footprint import Footprint
from memcalc.reporting.cases import PEAKS, Case
from memcalc.reporting.category_plots import Curve, bars, categories, ranges
from memcalc.reporting.error_plots import errors, methods
from memcalc.reporting.looks import Draw
from memcalc.reporting.plots import memory_over_time
from memcalc.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIONS = {"batch": "micro-batch, sequences", "seq_len": "sequence length, tokens"}  # that a range goes along
_INFORMATIVE = ("attention_kernel", "model_config")


class Drawing(NamedTuple):
    """How a picture is drawn, and its size in inches."""

    draw: Draw
    size: tuple[float, float]


class Largest(NamedTuple):
    """The largest case, and its timeline."""

    case: Case
    timeline: Timeline
    played: Replay


class Range(NamedTuple):
    """A case along its micro-batch and its sequence length, and the memory of its card."""

    case: Case
    curves: Sequence[Curve]
    limit: int | None
    card: str


def drawings(cases: list[Case], largest: Largest | None, along: Range | None) -> dict[str, Drawing]:
    """The pictures that these cases allow, by name."""
    compared = [case for case in cases if any(case.figure(peak) for peak in PEAKS)]
    found: dict[str, Drawing] = {}
    if compared:
        count = len({case.method for case in compared})
        found["errors"] = Drawing(partial(errors, cases=compared), (11.0, 4.6))
        found["methods"] = Drawing(partial(methods, cases=compared), (9.0, 1.6 + 0.45 * count))
    drawn = bars(compared)
    if drawn:
        found["categories"] = Drawing(partial(categories, drawn=drawn), (10.0, 1.6 + 0.36 * len(drawn)))
    if largest is not None:
        found["timeline"] = Drawing(partial(_timeline, largest=largest), (11.0, 5.0))
    if along is not None and along.curves:
        found["ranges"] = Drawing(partial(ranges, curves=along.curves, limit=along.limit, card=along.card), (11.0, 4.8))
    return found


def largest_of(cases: list[Case]) -> Case | None:
    """The case with the largest peak among those that estimate writes."""
    written = [case for case in cases if isinstance(case.estimate, Footprint) and case.figures]
    return max(written, key=_held, default=None)


def most_measured(cases: list[Case]) -> Case | None:
    """The case with most others that differ from it in one option alone; of several the largest. A GPU's first."""
    written = [case for case in cases if isinstance(case.estimate, Footprint) and case.figures]

    def worth(case: Case) -> tuple[bool, int, int]:
        return case.place == "GPU", max(len(siblings(case, cases, option)) for option in OPTIONS), _held(case)

    return max(written, key=worth, default=None)


def siblings(case: Case, cases: list[Case], option: str) -> list[tuple[int, Footprint]]:
    """The values of `option` with what was measured, of all cases that differ from one in nothing else."""
    return sorted(
        (
            (other.workload[option], other.row.footprint)
            for other in cases
            if other.is_measured
            and _but(other, option) == _but(case, option)
            and isinstance(other.workload.get(option), int)
        ),
        key=lambda pair: pair[0],
    )


def curves_of(
    case: Case, cases: list[Case], estimated: Callable[[str], Sequence[tuple[int, Footprint]]]
) -> list[Curve]:
    """A curve for each option; `estimated(option)` gives its values with their estimates."""
    return [Curve(words, estimated(option), siblings(case, cases, option)) for option, words in OPTIONS.items()]


def _held(case: Case) -> int:
    return case.estimate.held if isinstance(case.estimate, Footprint) else 0


def _but(case: Case, option: str) -> dict[str, object]:
    return {name: value for name, value in case.workload.items() if name not in (option, *_INFORMATIVE)}


def _timeline(figure: "Figure", largest: Largest) -> None:
    axes = figure.subplots()
    memory_over_time(axes, largest.timeline, largest.played)
    axes.set_title(described(largest.case), loc="left", fontsize=10)


def described(case: Case) -> str:
    """A case in one line."""
    return f"{case.model}, {case.method}, {case.precision}, {case.size} tokens"
