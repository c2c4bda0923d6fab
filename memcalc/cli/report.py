"""`memcalc report`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import click

import memcalc
from memcalc.cli.documented import Documented
from memcalc.errors import BadFile, InvalidWorkload, MissingPackage, NotModelled, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memcalc.planning.predicting import Record
    from memcalc.reporting.cases import Case
    from memcalc.reporting.document import Section
    from memcalc.reporting.pictures import Drawing
    from memcalc.reporting.reading import Note, Row

EXAMPLES = (
    "memcalc report ./runs.jsonl",
    "memcalc report ./runs.jsonl --trace --no-pictures",
    "memcalc report ./runs.jsonl --peers ./peers",
    "memcalc report ./profiles --out ./reports --name measured --check",
)


@click.command(cls=Documented, examples=EXAMPLES)
@click.argument("paths", nargs=-1, metavar="PATHS...")
@click.option("--out", default=".", show_default=True, metavar="FOLDER", help="where the files are written")
@click.option("--name", default="report", show_default=True, metavar="NAME", help="what the files are called")
@click.option("--trace", "traced", is_flag=True, help="also run the real step on meta tensors: seconds a row")
@click.option("--pictures/--no-pictures", default=True, help="draw them (needs matplotlib)  [default: on]")
@click.option(
    "--peers", metavar="FOLDER", help="also ask other estimators, each installed in FOLDER/NAME by venv and pip"
)
@click.option("--check", is_flag=True, help="write nothing; exit with 1 if NAME.md or NAME.csv there is out of date")
@click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
def report(
    paths: tuple[str, ...], out: str, name: str, traced: bool, pictures: bool, peers: str | None, check: bool
) -> None:
    """Lay predictions beside what was measured: Markdown, one HTML page, CSV and pictures.

    PATHS are files of `memcalc profile --out` (JSON lines), single footprints (--json), published measurements
    (memcalc.published/1), or folders of .jsonl files. What cannot be read is listed, never dropped in silence.
    """
    if not paths:
        raise InvalidWorkload("PATHS are missing: a file of footprints, as memcalc profile --out FILE writes them")
    if not name.isprintable() or os.path.basename(name) != name or not name.strip("."):
        raise InvalidWorkload(f"--name {shown(name)}: a file's name without its ending")
    if pictures and not check:
        _check_drawable()
    from memcalc.reporting import accuracy, writing
    from memcalc.reporting.reading import read
    from memcalc.reporting.table import csv_text

    rows, notes = read(paths)
    _tell(notes)
    if not rows:
        raise BadFile(", ".join(map(shown, paths)), "no row in there can be read")
    cases = _cases(rows, traced)
    drawn, about = _pictures(cases) if pictures else ({}, [])
    how = [*["--trace"] * traced, *(["--peers", peers] if peers else [])]
    made_by = shlex.join(["memcalc", "report", *paths, "--out", out, "--name", name, *how])
    document = accuracy.document(cases, notes, list(drawn), made_by, about, _peers(peers, cases))
    csv = csv_text(cases)
    if check:
        late = writing.stale(out, writing.texts(document, csv, name))
        for file in late:
            click.echo(f"{os.path.join(out, file)} is out of date")
        raise click.exceptions.Exit(1 if late else 0)
    for path in writing.write(out, name, document, csv, drawn):
        click.echo(path)


def _check_drawable() -> None:
    """Refuse before the work, not after it."""
    try:
        import_module("matplotlib")
    except ImportError:
        raise NotModelled(
            f"{MissingPackage('matplotlib', 'report')}, or leave the pictures out: --no-pictures"
        ) from None


def _cases(rows: Sequence[Row], traced: bool) -> list[Case]:
    """Every row with what the tiers say of it."""
    from memcalc.planning.predicting import predict
    from memcalc.reporting.cases import Case

    with _recorder(traced) as recorder, _progress() as progress:
        cases = []
        for at, row in enumerate(rows, start=1):
            progress(f"{at} of {len(rows)}: {row.name}")
            cases.append(Case(row, *predict(row.footprint, recorder)))
        return cases


def _peers(folder: str | None, cases: list[Case]) -> list[Section]:
    """What other estimators say of the same rows."""
    if folder is None:
        return []
    from memcalc.footprint import Footprint
    from memcalc.planning import peers
    from memcalc.reporting.peers import section

    counts = [case.estimate.total_params if isinstance(case.estimate, Footprint) else None for case in cases]
    asked = [{**case.workload, "total_params": count} for case, count in zip(cases, counts, strict=True)]
    return [section(cases, peers.ask(folder, asked))]


def _pictures(cases: list[Case]) -> tuple[dict[str, Drawing], list[str]]:
    """What is drawn, and a line on which cases the last two pictures are of."""
    from memcalc.catalog.find import find_gpu
    from memcalc.estimating import record
    from memcalc.planning.predicting import workload_of
    from memcalc.planning.ranges import along
    from memcalc.recording import replayed
    from memcalc.reporting import pictures as p

    about, largest, ranges = [], None, None
    if (case := p.largest_of(cases)) is not None:
        w = workload_of(case.row.footprint)
        timeline = record(w).timeline
        largest = p.Largest(case, timeline, replayed(w, timeline))
        about.append(f"The largest case: {case.row.name} ({p.described(case)}).")
    if (case := p.most_measured(cases)) is not None:
        w = workload_of(case.row.footprint)
        card = find_gpu(case.workload["gpu"]) if w.device == "cuda" else None
        curves = p.curves_of(case, cases, lambda option: list(along(w, option)))
        ranges = p.Range(case, curves, card and card.memory_bytes, card.name if card else "")
        about.append(f"Against batch and length: {case.row.name} ({p.described(case)}).")
    return p.drawings(cases, largest, ranges), about


def _tell(notes: Sequence[Note]) -> None:
    """What was not read, on stderr: a report that is short of rows must not look complete."""
    from memcalc.reporting.console import printable

    for note in notes:
        times = f" (and {note.times - 1} more lines)" if note.times > 1 else ""
        click.echo(printable(f"memcalc: not read: {note.place}: {note.reason}{times}"), err=True)


@contextmanager
def _recorder(traced: bool) -> Iterator[Record | None]:
    if not traced:
        yield None
        return
    from memcalc.cli.trace import quiet

    with quiet():
        from memcalc.tracing.record import record

        yield record


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("reading") as status:
        yield lambda text: status.update(escape(text))
