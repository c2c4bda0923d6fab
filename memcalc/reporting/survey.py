"""Methods side by side, as people read them: 80 columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple, get_args

from rich.text import Text

from memcalc.methods.base import Kind
from memcalc.reporting.console import printable
from memcalc.units import count, flops, gib

if TYPE_CHECKING:
    from memcalc.planning.survey import Row, Survey

_WIDTH = 80
_NOTHING = "–"
KINDS = get_args(Kind)


class Line(NamedTuple):
    """A line of a table: its name, and a cell for each column."""

    name: str
    cells: Sequence[str]


def compared(survey: "Survey", *, on_gpu: bool = False) -> Text:
    """The rows by family: first what is trained, stored and added, then what a step needs; reasons beneath.

    `on_gpu` adds whether it fits there.
    """
    groups = _grouped(survey.rows)
    blocks = [_heading(survey), _storage(groups), _step(groups, survey, on_gpu), reasons(survey.refused)]
    paragraphs = (Text("\n").join(block) for block in blocks)
    return Text("\n\n").join(paragraph for paragraph in paragraphs if paragraph)


Groups = Sequence[tuple[str, Sequence["Row"]]]


def _grouped(rows: Iterable["Row"]) -> Groups:
    """Rows under the name of their family, with what their base has that others' has not."""

    def place(row: "Row") -> tuple[int, bool, str, bool]:
        return KINDS.index(row.type), row.quant != "none", row.quant, row.checkpointing

    ordered = sorted(rows, key=place)
    some = {row.checkpointing for row in ordered} == {False, True}
    return [(_family(key, some), list(found)) for key, found in groupby(ordered, place)]


def _family(place: tuple[int, bool, str, bool], some_checkpoint: bool) -> str:
    kind, packed, quant, checkpointing = place
    words = [KINDS[kind], f"over {quant}" if packed else ""]
    return " ".join(filter(None, words)) + (", checkpointing" if checkpointing and some_checkpoint else "")


def _heading(survey: "Survey") -> Iterator[Text]:
    w = survey.workload
    parts = [survey.model, f"{w['batch']} × {w['seq_len']} tokens"]
    parts += [str(w["dtype"])] if "dtype" in w else []
    parts += [f"{w['amp']} autocast"] if w.get("amp", "none") != "none" else []
    parts += [str(w["optimizer"])] if "optimizer" in w else []
    parts += ["checkpointing"] if w.get("checkpointing") else []
    yield Text(printable(" · ".join(parts)), style="bold")
    if survey.full is not None:
        needs = f"{gib(survey.full.held)} {_level(survey)}, {flops(survey.full.backward_flops)} in backward"
        yield Text(f"full fine-tuning: {needs}")


def _storage(groups: Groups) -> Iterator[Text]:
    starred = False

    def lines(rows: Sequence["Row"]) -> Iterator[Line]:
        nonlocal starred
        for row in rows:
            starred = starred or bool(row.mergeable)
            share = row.trainable_params / row.total_params
            added = f"{gib(row.inference_bytes)}{'*' if row.mergeable else ' '}" if row.inference_params else _NOTHING
            changed = count(row.changed_params) if row.changed_params else _NOTHING
            yield Line(
                row.method, (count(row.trainable_params), percent(share), changed, gib(row.checkpoint_bytes), added)
            )

    heads = ("trained", "share", "changed", "checkpoint", "inference ")
    yield from table("Parameters", heads, [(title, list(lines(rows))) for title, rows in groups])
    if starred:
        yield Text("* nothing once it is merged into the base's weights")


def _step(groups: Groups, survey: "Survey", on_gpu: bool) -> Iterator[Text]:
    def lines(rows: Sequence["Row"]) -> Iterator[Line]:
        for row in rows:
            held = row.peak_allocated if row.peak_reserved is None else row.peak_reserved
            shares = percent(row.peak_of_full), percent(row.backward_of_full)
            reached = f"{row.layers_reached} of {row.layers}"
            cells = (gib(held), shares[0], gib(row.kept_bytes), shares[1], reached)
            yield Line(row.method, cells + ("yes" if row.fits else "no",) * on_gpu)

    heads = (_level(survey), "of full", "kept", "backward", "reaches", *["fits"] * on_gpu)
    yield from table("A step", heads, [(title, list(lines(rows))) for title, rows in groups])


def _level(survey: "Survey") -> str:
    return "allocated" if any(row.peak_reserved is None for row in survey.rows) else "reserved"


def table(title: str, heads: Sequence[str], groups: Sequence[tuple[str, Sequence[Line]]]) -> Iterator[Text]:
    """Names to the left, in groups; figures to the right, as wide as they are."""
    everything = [line for _, lines in groups for line in lines]
    name = max(len(title), *(len(line.name) + 2 for line in everything))
    widths = [
        max(len(cell) for cell in column) for column in zip(heads, *(line.cells for line in everything), strict=True)
    ]

    def written(first: str, cells: Sequence[str]) -> str:
        figures = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{first:<{name}}{figures}".rstrip()

    yield Text(written(title, heads), style="bold")
    for family, lines in groups:
        if family:
            yield Text(family, style="dim")
        yield from (Text(written(f"  {line.name}", line.cells)) for line in lines)


def percent(share: float | None) -> str:
    """A share with two digits that count, or whole per cent."""
    if share is None:
        return _NOTHING
    if share < 1e-6:
        return "< 0.0001 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def reasons(found: Mapping[str, str]) -> Iterator[Text]:
    """Why methods are not in a table."""
    if found:
        yield Text("Not here:", style="bold")
    for method, reason in found.items():
        line = printable(f"{method}: {reason}")
        for part in wrap(line, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False):
            yield Text(part)
