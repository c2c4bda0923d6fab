"""The report on how well predictions meet measurements: what it says, section by section."""

from collections.abc import Iterator, Sequence

from memcalc.footprint import Footprint
from memcalc.reporting.cases import Case, Figure
from memcalc.reporting.document import Document, Picture, Section, Table
from memcalc.reporting.reading import Note
from memcalc.reporting.summary import Group, by_property, error, overall
from memcalc.units import gib

PICTURES = {
    "errors": "Predicted against measured peaks on logarithmic axes, and how far off each is; bands of 1 % and 5 %",
    "methods": "The error of every peak, by method",
    "categories": "What the predicted peak is made of, as shares of the measured one",
    "timeline": "What is allocated over one run of the largest case, by category, as estimate writes it down",
    "ranges": "Memory against micro-batch and against sequence length, with the card's limit",
}


def document(
    cases: list[Case],
    notes: list[Note],
    pictures: Sequence[str],
    made_by: str,
    about: Sequence[str] = (),
    more: Sequence[Section] = (),
) -> Document:
    """The report. `pictures` names those that were drawn, `about` is a line more for some, `more` stands at the end."""
    sections = _sections(cases, notes, pictures, made_by, about)
    return Document(
        "Predictions against measurements", [*sections, *more, Section("How to read this", list(_explained(cases)))]
    )


def _sections(
    cases: list[Case], notes: list[Note], pictures: Sequence[str], made_by: str, about: Sequence[str]
) -> Iterator[Section]:
    shown = {name: [Picture(name, says)] for name, says in PICTURES.items() if name in pictures}
    compared = [case for case in cases if not case.missing]
    measured = [case for case in compared if case.is_measured]
    yield Section("In short", [*_short(cases, compared, measured, made_by), *shown.get("errors", [])])
    groups = by_property(compared)
    if groups:
        yield Section("By source, method, family, precision and phase", [_accuracy(groups), *shown.get("methods", [])])
    pictured = [part for name in ("categories", "timeline", "ranges") for part in shown.get(name, [])]
    if pictured:
        yield Section("Pictures", [*pictured, *about])
    for source in dict.fromkeys(case.row.source for case in compared):
        mine = [case for case in compared if case.row.source == source]
        yield Section(f"Every case: {source}", [_cases(mine)])
    missing = list(_missing(cases))
    if missing:
        yield Section("Rows without a prediction", [Table(("row", "workload", "reason"), missing, texts=3)])
    if notes:
        lines = [(note.place, note.reason, str(note.times)) for note in notes]
        yield Section("What was not read", [Table(("place", "reason", "lines"), lines, texts=2)])


def _short(cases: list[Case], compared: list[Case], measured: list[Case], made_by: str) -> Iterator[str | Table]:
    yield f"Made by: {made_by}"
    figures = sum(len(case.figures) for case in compared)
    left = len(cases) - len(compared)
    others = f"; the other {left} are listed below with the reason" if left else ""
    yield f"{len(compared)} of {len(cases)} rows are compared, in {figures} figures{others}."
    if len(measured) < len(compared):
        yield (
            f"Rows that are predictions themselves (estimate, trace): {len(compared) - len(measured)}. They are held "
            "against today's estimate too, but the next table does without them."
        )
    groups = overall(measured)
    if groups:
        yield Table(("measured on", *_HEADS), [_accuracy_row(group)[1:] for group in groups], texts=2)


_HEADS = ("figure", "figures", "mean error", "median", "worst", "bias", "correlation")


def _accuracy(groups: list[Group]) -> Table:
    return Table(("", "", *_HEADS), [_accuracy_row(group) for group in groups], texts=3)


def _accuracy_row(group: Group) -> tuple[str, ...]:
    known = group.accuracy
    r = "–" if known.correlation is None else f"{known.correlation:.5f}"
    errors = (percent(value) for value in (known.mean, known.median, known.worst))
    return (group.property, group.value, group.figure, str(known.figures), *errors, signed(known.bias), r)


def _cases(cases: list[Case]) -> Table:
    traced = any(case.trace is not None for case in cases)
    heads = ("case", "workload", "figure", "measured", "estimate", "error", *(("trace", "error") if traced else ()))
    rows = [row for case in cases for row in _case_rows(case, traced)]
    return Table(heads, rows, texts=3)


def _case_rows(case: Case, traced: bool) -> Iterator[tuple[str, ...]]:
    who = (case.row.name, f"{case.model}, {case.method}, {case.precision}, {case.size} tokens")
    for each in case.figures:
        cells = [_amount(each, each.measured), *_said(each, each.estimate)]
        if traced:
            cells += _said(each, each.trace)
        yield (*who, each.name, *cells)
        who = ("", "")


def _said(figure: Figure, predicted: int | None) -> tuple[str, str]:
    off = error(figure.measured, predicted)
    return "–" if predicted is None else _amount(figure, predicted), "–" if off is None else signed(off)


def _amount(figure: Figure, value: int) -> str:
    return f"{value:,}" if figure.group == "count" else gib(value)


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{100 * value:.3f} %"


def signed(value: float) -> str:
    """An error: + where more was predicted than measured."""
    return f"{100 * value:+.3f} %"


def _missing(cases: list[Case]) -> Iterator[tuple[str, ...]]:
    """Rows that are compared with nothing, then what one tier does not say of the others."""
    for case in cases:
        who = (case.row.name, f"{case.model}, {case.method}, {case.precision}")
        if case.missing:
            yield (*who, case.missing)
        else:
            yield from ((*who, f"{tier}: {reason}") for tier, reason in case.refusals.items())


def _explained(cases: list[Case]) -> Iterator[str]:
    yield (
        "An error is the prediction less the measurement, as a share of the measurement; mean, median and worst are of "
        "its size without its sign, bias is the mean with it. The correlation is Pearson's r of the bytes."
    )
    yield (
        "Allocated is what torch.cuda.max_memory_allocated() tells, reserved what max_memory_reserved() does. "
        "GiB = 2³⁰ bytes; the CSV beside this page has all figures in bytes. On the CPU torch counts nothing: there "
        "every tensor of the real run was recorded, and nothing is reserved."
    )
    said = [case.estimate for case in cases if isinstance(case.estimate, Footprint)]
    if said:
        versions = ", ".join(f"{name} {version}" for name, version in said[0].versions.items())
        yield (
            f"estimate models {versions}. What was measured under other versions is held against these all the same: "
            "an error of such a row may be what the libraries have changed since."
        )
