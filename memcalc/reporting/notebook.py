"""A footprint as a notebook shows it: an HTML fragment that takes its ground and its ink from the page around it."""

from collections.abc import Iterator
from html import escape

from memcalc.footprint import Footprint
from memcalc.reporting.console import category_name, heading, printable
from memcalc.reporting.looks import CATEGORY_COLOURS
from memcalc.units import gib

_LEVELS = {
    "peak_live": "live", "peak_allocated": "allocated", "peak_reserved": "reserved", "device_total": "device",
}  # fmt: skip
_LINE = "border-bottom: 1px solid rgba(128,128,128,.35)"
_TEXT = "text-align: left; padding: 1px 12px 1px 0; background: none"
_FIGURE = "text-align: right; padding: 1px 12px 1px 0; font-variant-numeric: tabular-nums; background: none"
_WIDEST = 16  # em of the longest bar


def fragment(footprint: Footprint) -> str:
    """Categories with bars, levels, phases and parameters. No script, no style sheet; text from files is escaped."""
    return "".join(_parts(footprint))


def _parts(footprint: Footprint) -> Iterator[str]:
    yield '<div style="font-size: 13px; line-height: 1.45">'
    first, *others = (escape(line.plain) for line in heading(footprint))
    yield f"<div><b>{first}</b></div>"
    yield from (f'<div style="opacity: .75">{line}</div>' for line in others if line)
    yield '<div style="display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 2.5em; margin: .6em 0">'
    yield from _categories(footprint)
    yield from _levels(footprint)
    yield from _phases(footprint)
    yield "</div>"
    if footprint.total_params is not None and footprint.trainable_params is not None:
        yield f"<div>trainable parameters: {footprint.trainable_params:,} of {footprint.total_params:,}</div>"
    yield from (f"<div><b>warning:</b> {escape(printable(warning))}</div>" for warning in footprint.warnings)
    yield "</div>"


def _categories(footprint: Footprint) -> Iterator[str]:
    total = footprint.peak_allocated
    if not footprint.at_peak or not total:
        return
    where = f"at the peak, in {footprint.peak_phase}" if footprint.peak_phase else "at the peak"
    yield _opened(printable(where), "memory", "share", "")
    longest = max(footprint.at_peak.values())
    for category, nbytes in footprint.at_peak.items():
        if nbytes:
            bar = (
                f'<div style="width: {nbytes / longest * _WIDEST:.2f}em; min-width: 1px; height: .8em; '
                f'background: {CATEGORY_COLOURS.get(category, "#999999")}"></div>'
            )
            yield _row(category_name(category), gib(nbytes), f"{100 * nbytes / total:.1f} %", html=bar)
    yield _row("total", gib(total), "100.0 %", html="")
    yield "</table>"


def _levels(footprint: Footprint) -> Iterator[str]:
    yield _opened("level", "peak")
    for field, name in _LEVELS.items():
        level = getattr(footprint, field)
        yield _row(name, "–" if level is None else gib(level), title=footprint.unavailable.get(field, ""))
    yield "</table>"


def _phases(footprint: Footprint) -> Iterator[str]:
    if not footprint.phases:
        return
    yield _opened("phase", "allocated", "after it", "reserved")
    for phase in footprint.phases:
        levels = (phase.allocated_peak, phase.allocated_end, phase.reserved_peak)
        yield _row(printable(phase.name), *("–" if level is None else gib(level) for level in levels))
    yield "</table>"


def _opened(first: str, *heads: str) -> str:
    cells = "".join(f'<th style="{_FIGURE}">{escape(head)}</th>' for head in heads)
    style = f"border-collapse: collapse; font-size: inherit; color: inherit; margin: 0 0 .6em 0; {_LINE}"
    return f'<table style="{style}"><tr style="{_LINE}"><th style="{_TEXT}">{escape(first)}</th>{cells}</tr>'


def _row(first: str, *figures: str, html: str | None = None, title: str = "") -> str:
    """A row of text and figures; `html` is a last cell of our own making, `title` what the mouse is told."""
    cells = "".join(f'<td style="{_FIGURE}">{escape(figure)}</td>' for figure in figures)
    last = "" if html is None else f'<td style="{_TEXT}">{html}</td>'
    told = f' title="{escape(printable(title))}"' if title else ""
    return f'<tr style="background: none"{told}><td style="{_TEXT}">{escape(first)}</td>{cells}{last}</tr>'
