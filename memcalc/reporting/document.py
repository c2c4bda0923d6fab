"""A report as a document: sections with paragraphs, tables, pictures. How it is written down is for the writers."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Text in cells. The first `texts` columns are read from the left, the others are figures."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: int = 1


@dataclass(frozen=True)
class Picture:
    """A picture by its name; `says` is what it shows, for those who do not see it, and as its caption."""

    name: str
    says: str


@dataclass(frozen=True)
class Section:
    """A title and what stands under it."""

    title: str
    parts: Sequence[str | Table | Picture]  # a text is a paragraph


@dataclass(frozen=True)
class Document:
    title: str
    sections: Sequence[Section]
