"""A document as Markdown. What came from files is escaped: it is text, and nothing else."""

import re
from collections.abc import Callable, Iterator
from html import escape

from memcalc.reporting.document import Document, Picture, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def markdown(document: Document, link: Callable[[str, str], str]) -> str:
    """The whole text; `link(picture, look)` is where a picture in the light or the dark look lies."""
    return "\n".join(_lines(document, link))


def _lines(document: Document, link: Callable[[str, str], str]) -> Iterator[str]:
    yield f"# {escaped(document.title)}"
    for section in document.sections:
        yield from ("", f"## {escaped(section.title)}")
        for part in section.parts:
            yield ""
            if isinstance(part, Table):
                yield from _table(part)
            elif isinstance(part, Picture):
                yield from _picture(part, link)
            else:
                yield escaped(part)
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield _row(table.heads)
    yield "|" + "---|" * table.texts + "---:|" * (len(table.heads) - table.texts)
    yield from map(_row, table.rows)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |"


def _picture(picture: Picture, link: Callable[[str, str], str]) -> Iterator[str]:
    """GitHub picks the look that the reader has chosen."""
    alt = re.sub(r"[^\w .,:;%()'/×-]", " ", picture.says)
    yield "<picture>"
    yield f'  <source media="(prefers-color-scheme: dark)" srcset="{link(picture.name, "dark")}">'
    yield f'  <img alt="{alt}" src="{link(picture.name, "light")}">'
    yield from ("</picture>", "", escaped(picture.says))


def escaped(text: str) -> str:
    """Text in one line in which Markdown finds nothing to do."""
    line = _SPECIAL.sub(r"\\\1", escape(" ".join(text.split()), quote=False))
    return re.sub(r"^([#+=-]|\d+\.)(?=\s|$)", r"\\\1", line)
