"""What a budget of parameters buys of each method, as people read it: 80 columns."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from memcalc.reporting.console import printable
from memcalc.reporting.survey import KINDS, Line, percent, reasons, table
from memcalc.units import count, gib

if TYPE_CHECKING:
    from memcalc.planning.budget import Bought, Budget


def bought(budget: "Budget", *, on_gpu: bool = False) -> Text:
    """The rows by family, with what each costs; reasons beneath. `on_gpu` adds whether it fits there."""
    blocks = [_heading(budget), _rows(budget, on_gpu), reasons(budget.refused)]
    paragraphs = (Text("\n").join(block) for block in blocks)
    return Text("\n\n").join(paragraph for paragraph in paragraphs if paragraph)


def _heading(budget: "Budget") -> Iterator[Text]:
    own = f"{budget.model}, {count(budget.model_params)} parameters"
    if budget.params is None:
        yield Text(printable(own), style="bold")
        return
    share = percent(budget.params / budget.model_params)
    yield Text(printable(f"{own} · at most {count(budget.params)} trained ({share})"), style="bold")


def _rows(budget: "Budget", on_gpu: bool) -> Iterator[Text]:
    if not budget.rows:
        return

    def place(row: "Bought") -> int:
        return KINDS.index(row.type)

    groups = groupby(sorted(budget.rows, key=place), place)
    level = "allocated" if any(row.peak_reserved is None for row in budget.rows) else "reserved"
    heads = ("size", "trained", "checkpoint", level, *["fits"] * on_gpu)
    title = "As given" if budget.params is None else "The largest"
    yield from table(title, heads, [(KINDS[kind], list(_lines(rows, on_gpu))) for kind, rows in groups])


def _lines(rows: Iterable["Bought"], on_gpu: bool) -> Iterator[Line]:
    for row in rows:
        held = row.peak_allocated if row.peak_reserved is None else row.peak_reserved
        cells = (_size(row), count(row.trainable_params), gib(row.checkpoint_bytes), gib(held))
        yield Line(row.method, cells + ("yes" if row.fits else "no",) * on_gpu)


def _size(row: "Bought") -> str:
    if row.option is None:
        return "–"
    if not row.size:
        return f"{row.option} by default"
    whole = float(row.size).is_integer()  # a size may be a share, and ten million is no 1e+07
    return f"{row.option} {int(row.size) if whole else row.size}"
