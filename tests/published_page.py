"""The report on published measurements: every figure, and the blocks behind those that are off."""

from collections.abc import Iterator
from dataclasses import dataclass

from memcalc.comparing import first_difference
from memcalc.units import gib
from tests.explaining import EXPLAINED_ABOVE, Reason, reason
from tests.figures import Figure, Prediction, Row
from tests.histories import other_histories
from tests.peaks import blocks_at_peak


@dataclass(frozen=True)
class Predicted:
    """A row and what the tiers say of it; a string is why a tier says nothing."""

    row: Row
    estimate: Prediction | str
    trace: Prediction | str | None

    def figures(self) -> list[Figure]:
        return [] if isinstance(self.estimate, str) else self.estimate.figures()


def summary(found: list[Predicted]) -> str:
    """How many figures are within their bars."""
    figures = [figure for each in found for figure in each.figures()]
    held = [figure for figure in figures if figure.bar is not None]
    missed = sum(figure.missed for figure in held)
    written = sum(not isinstance(each.estimate, str) for each in found)
    return (
        f"{written} of {len(found)} rows can be written by estimate: {len(figures)} figures, {len(held)} with a bar, "
        f"{len(held) - missed} of them within it."
    )


def page(found: list[Predicted], options: str) -> str:
    """The whole report in Markdown."""
    return "\n".join(_sections(found, options)) + "\n"


def _sections(found: list[Predicted], options: str) -> Iterator[str]:
    yield "# Published measurements against predictions"
    yield ""
    yield f"Made by `python -m tests.published {options}--out reports/published.md` from profiles/published. Bytes."
    yield "An error is the prediction less the measurement, a bar the largest error that this project allows itself."
    yield ""
    yield summary(found)
    for source in dict.fromkeys(each.row.source for each in found):
        mine = [each for each in found if each.row.source == source]
        yield from ("", f"## {source}", "")
        yield from _table([each for each in mine if not isinstance(each.estimate, str)])
        yield from (
            "",
            *(f"- not written: `{each.row.id}`: {each.estimate}" for each in mine if isinstance(each.estimate, str)),
        )
        yield from _ranges(mine)
    yield from ("", f"## Errors above {EXPLAINED_ABOVE:.1%}, explained")
    for each in found:
        if not isinstance(each.estimate, str):
            yield from _explained(each.row, each.estimate)


def _table(found: list[Predicted]) -> Iterator[str]:
    traced = any(each.trace is not None for each in found)
    heads = [
        "row",
        "figure",
        "measured",
        "estimate",
        "error",
        "",
        "bar",
        "within",
        *(["trace", "stream"] if traced else []),
    ]
    yield "| " + " | ".join(heads) + " |"
    yield "|---|---|---:|---:|---:|---:|---:|---|" + "---:|---|" * traced
    for each in found:
        for place, figure in enumerate(each.figures()):
            bar = "" if figure.bar is None else f"{figure.bar:.1%}" if figure.bar else "exact"
            within = "" if figure.bar is None else "**no**" if figure.missed else "yes"
            cells = [
                each.row.id if place == 0 else "", figure.name, f"{figure.measured:,}", f"{figure.predicted:,}",
                f"{figure.predicted - figure.measured:+,}", f"{figure.error:+.3%}", bar, within,
                *(_trace_cells(each, place) if traced else []),
            ]  # fmt: skip
            yield "| " + " | ".join(cells) + " |"


def _trace_cells(each: Predicted, place: int) -> list[str]:
    if not isinstance(each.trace, Prediction) or not isinstance(each.estimate, Prediction):
        return [str(each.trace), ""]
    stream = ""
    if place == 0:
        difference = first_difference(
            each.estimate.recording.timeline, each.trace.recording.timeline, ("estimate", "trace")
        )
        stream = "identical" if difference is None else difference.summary.replace("|", "¦")
    return [f"{each.trace.figures()[place].predicted:,}", stream]


def _ranges(found: list[Predicted]) -> Iterator[str]:
    """Reserved as a range, where it carries how the weights were loaded or is off by more than has to be explained."""
    for each in found:
        reserved = next((figure for figure in each.figures() if figure.name == "peak reserved"), None)
        loaded_packed = isinstance(each.estimate, Prediction) and each.row.workload.quant != "none"
        if isinstance(each.estimate, str) or reserved is None:
            continue
        if loaded_packed or abs(reserved.error) > EXPLAINED_ABOVE:
            others = other_histories(each.row, each.estimate)
            low, high = min(reserved.predicted, *others.values()), max(reserved.predicted, *others.values())
            said = ", ".join(f"{why} {nbytes / reserved.measured - 1:+.2%}" for why, nbytes in others.items())
            yield f"- reserved of `{each.row.id}`: {gib(low)} to {gib(high)}, measured {gib(reserved.measured)}: {said}"


def _explained(row: Row, prediction: Prediction) -> Iterator[str]:
    for figure in prediction.figures():
        if abs(figure.error) <= EXPLAINED_ABOVE:
            continue
        off = figure.predicted - figure.measured
        yield from ("", f"### {row.id}, {figure.name}: {off:+,} B ({figure.error:+.2%})", "")
        why = reason(row, figure)
        yield _reason_line(why, off) if why else "No reason known."
        phase = figure.name.removeprefix("phase: ") if figure.name.startswith("phase: ") else None
        yield from ("", "Largest blocks at that peak of the prediction:", "")
        yield from blocks_at_peak(prediction.recording.timeline, phase)


def _reason_line(why: Reason, off: int) -> str:
    if why.nbytes is None:
        return why.text
    return f"{why.text}: {why.nbytes:+,} B, which leaves {off - why.nbytes:+,} B."
