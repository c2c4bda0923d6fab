"""What the commands share that list what is known: words to search by, a table for people, --json for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import click

import memcalc
from memcalc.catalog.names import mentions
from memcalc.cli.documented import Documented
from memcalc.errors import UnknownName

Entry = dict[str, Any]  # one JSON object, its "name" first

_FEW = 6  # entries that are told in full beneath the table


class Column(NamedTuple):
    """A column of the table: its title, what an entry has there, and whether it is a figure."""

    title: str
    cell: Callable[[Entry], str]
    figure: bool = False
    wraps: bool = False


class Listing(Documented):
    """A command that lists entries. Its callback takes `words` and `as_json`."""


def listing_options(command: Callable[..., None]) -> Callable[..., None]:
    """WORDS… and --json."""
    decorated = click.argument("words", nargs=-1, metavar="[WORDS]...")(command)
    decorated = click.option("--json", "as_json", is_flag=True, help="print a JSON list of objects")(decorated)
    return click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")(decorated)


def search(
    kind: str, entries: Iterable[Entry], words: Sequence[str], texts: Callable[[Entry], list[str]]
) -> list[Entry]:
    """The entries in whose texts every word is found. Raises UnknownName with the nearest where there is none."""
    known = [(entry, texts(entry)) for entry in entries]
    found = [entry for entry, searched in known if mentions(words, searched)]
    if not found:
        names = [text.lower() for _, searched in known for text in searched]
        raise UnknownName(kind, " ".join(words), names, f"memcalc {kind.lower()}s lists all")
    return found


def show(
    entries: list[Entry],
    as_json: bool,
    columns: Sequence[Column],
    details: Callable[[Entry], Iterable[tuple[str, str]]],
    note: str = "",
) -> None:
    """Print them; where they are few, each in full as well."""
    if as_json:
        click.echo(json.dumps(entries))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.figure else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    for entry in entries:
        table.add_row(*(Text(column.cell(entry)) for column in columns))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    with console.capture() as capture:  # rich itself would exit with 1 where the reader has left
        console.print(table)
        for entry in entries if len(entries) <= _FEW else ():
            facts = list(details(entry))
            if not facts:
                continue
            console.print(Text(f"\n{entry['name']}", style="bold"))
            grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            grid.add_column(no_wrap=True, min_width=14)
            grid.add_column(overflow="fold")
            for title, text in facts:
                grid.add_row(f"  {title}", Text(text))
            console.print(grid)
        if note:
            console.print(Text(f"\n{note}"))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
