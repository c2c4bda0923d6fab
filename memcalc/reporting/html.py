"""A document as one HTML page that stands alone: no script, and nothing is loaded from anywhere."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from html import escape

from memcalc.reporting.document import Document, Picture, Section, Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --text: #1a1a1a; --faint: #5c5c5c; --line: #d6d6d6; --band: #f4f4f4
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --text: #e6e6e6; --faint: #a3a3a3; --line: #3a3f45; --band: #1d2126 }
}
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
nav a { color: inherit; margin-right: 1.2em } p { max-width: 60rem } figcaption { color: var(--faint) }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 0.87rem; margin: 1rem 0 }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere }
.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; padding-left: 0.75rem }
thead th { border-bottom: 1px solid var(--line); background: var(--band) }
tbody tr:nth-child(even) { background: var(--band) }
""".strip()


def html(document: Document, image: Callable[[str, str], bytes]) -> str:
    """The whole page; `image(picture, look)` is a picture's PNG in the light or the dark look."""
    return "\n".join(_lines(document, image))


def _lines(document: Document, image: Callable[[str, str], bytes]) -> Iterator[str]:
    title = escape(document.title)
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>"
    links = (f'<a href="#s{at}">{escape(section.title)}</a>' for at, section in enumerate(document.sections))
    yield f"<nav>{' '.join(links)}</nav>"
    for at, section in enumerate(document.sections):
        yield from _section(section, at, image)
    yield "</main>\n</body>\n</html>\n"


def _section(section: Section, at: int, image: Callable[[str, str], bytes]) -> Iterator[str]:
    yield f'<section>\n<h2 id="s{at}">{escape(section.title)}</h2>'
    for part in section.parts:
        if isinstance(part, Table):
            yield from _table(part)
        elif isinstance(part, Picture):
            yield from _figure(part, image)
        else:
            yield f"<p>{escape(part)}</p>"
    yield "</section>"


def _table(table: Table) -> Iterator[str]:
    yield f'<div class="wide"><table>\n<thead><tr>{_cells("th", table.heads, table.texts)}</tr></thead>\n<tbody>'
    for row in table.rows:
        yield f"<tr>{_cells('td', row, table.texts)}</tr>"
    yield "</tbody>\n</table></div>"


def _cells(tag: str, cells: tuple[str, ...], texts: int) -> str:
    kinds = ("" if at < texts else " class='figure'" for at in range(len(cells)))
    return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))


def _figure(picture: Picture, image: Callable[[str, str], bytes]) -> Iterator[str]:
    light, dark = (
        f"data:image/png;base64,{b64encode(image(picture.name, look)).decode('ascii')}" for look in ("light", "dark")
    )
    yield "<figure><picture>"
    yield f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    yield f'<img alt="{escape(picture.says)}" src="{light}">'
    yield f"</picture><figcaption>{escape(picture.says)}</figcaption></figure>"
