"""A report as files: one text in Markdown, one page in HTML, one CSV, and the pictures."""

import os
from collections.abc import Mapping

from memcalc.catalog.reading import place
from memcalc.errors import BadFile
from memcalc.reporting.document import Document
from memcalc.reporting.html import html
from memcalc.reporting.looks import LOOKS, png
from memcalc.reporting.markdown import markdown
from memcalc.reporting.pictures import Drawing


def texts(document: Document, csv: str, name: str) -> dict[str, str]:
    """The files that a change of figures changes, by name: what `stale` compares."""
    return {f"{name}.md": markdown(document, lambda picture, look: _file(name, picture, look)), f"{name}.csv": csv}


def stale(folder: str, files: Mapping[str, str]) -> list[str]:
    """The files that are not what they would be if they were written now."""
    return [name for name, text in files.items() if _read(os.path.join(folder, name)) != text]


def write(folder: str, name: str, document: Document, csv: str, drawings: Mapping[str, Drawing]) -> list[str]:
    """Write everything; returns the paths. Raises BadFile where that cannot be, MissingPackage without matplotlib."""
    images = {
        (picture, look): png(drawing.draw, drawing.size, look)
        for picture, drawing in drawings.items()
        for look in LOOKS
    }
    page = html(document, lambda picture, look: images[picture, look])
    files: dict[str, bytes] = {
        **{file: text.encode("utf-8", "backslashreplace") for file, text in texts(document, csv, name).items()},
        f"{name}.html": page.encode("utf-8", "backslashreplace"),
        **{_file(name, picture, look): image for (picture, look), image in images.items()},
    }
    paths = []
    for file, data in files.items():
        path = os.path.join(folder, file)
        try:
            os.makedirs(folder, exist_ok=True)
            with open(path, "wb") as out:
                out.write(data)
        except OSError as error:
            raise BadFile(place(path), f"cannot be written: {error.strerror or error}") from None
        paths.append(path)
    return paths


def _file(name: str, picture: str, look: str) -> str:
    return f"{name}-{picture}{'' if look == 'light' else f'-{look}'}.png"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None
