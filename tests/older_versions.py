"""trace under older libraries: an environment for each, and the published rows that were measured with them.

    python -m tests.older_versions --out reports/older_versions.md
    python -m tests.older_versions --only 4.57.6 --folder ~/older

An environment is a folder of packages before this interpreter's own ones, so that its torch serves all of them.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from memcalc.errors import MemcalcError
from memcalc.footprint import Footprint
from memcalc.importers.peft import from_json
from tests.figures import Row, rows
from tests.older_versions_page import missed, page

OTHER_LENGTHS = (683, 686, 688)  # of the longest batch of PEFT's rows: it was not published, these fit as 684 does
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Environment:
    """Versions that were used together, and whose rows are run in it."""

    transformers: str
    peft: str
    tokenizers: str
    hub: str
    source: str
    accelerate: str | None = None  # None: this interpreter's

    def packages(self) -> list[str]:
        """For pip, without what they depend on: torch and the rest are here already."""
        others = [f"accelerate=={self.accelerate}"] if self.accelerate else []
        return [
            f"transformers=={self.transformers}", f"peft=={self.peft}", f"tokenizers=={self.tokenizers}", *others
        ]  # fmt: skip

    def runs(self, row: Row) -> bool:
        """Whether a row belongs here: by its source, and where one spans versions by its own."""
        spans = row.source == "fms"
        return row.source == self.source and (not spans or row.versions["transformers"] == self.transformers)


ENVIRONMENTS = {
    environment.transformers: environment
    for environment in (
        Environment("4.45.2", "0.13.2", "0.20.3", "huggingface_hub==0.36.0", "fms", "1.0.1"),
        Environment("4.48.1", "0.13.2", "0.21.4", "huggingface_hub==0.36.0", "fms", "1.0.1"),
        Environment("4.57.6", "0.21.2", "0.22.1", "huggingface_hub==0.36.0", "vramcalc"),
        Environment("5.0.0", "0.19.1", "0.22.1", "huggingface_hub>=1.5,<2", "fitcheck"),
        Environment("5.13.1", "0.20.0", "0.22.1", "huggingface_hub>=1.5,<2", "peft"),
        Environment("5.17.0", "0.20.0", "0.23.1", "huggingface_hub>=1.5,<2", "fitcheck"),
    )
}


def made(environment: Environment, folder: Path) -> Path:
    """The environment's folder, filled by pip where it is not there."""
    place = folder / environment.transformers
    if not place.exists():
        begun = folder / f"{environment.transformers} begun"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(begun)]
        subprocess.run([*pip, environment.hub], check=True)
        subprocess.run([*pip, "--no-deps", *environment.packages()], check=True)
        begun.rename(place)
    return place


def run(environment: Environment, place: Path) -> list[dict[str, Any]]:
    """What trace says of the environment's rows, in an interpreter of their own."""
    path = os.pathsep.join((str(place), str(REPOSITORY)))
    command = [sys.executable, "-m", "tests.older_versions", "--inside", environment.transformers]
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def inside(environment: Environment) -> Iterator[dict[str, Any]]:
    """Each row's figures, measured and traced; the libraries are the environment's here."""
    import transformers

    from memcalc.tracing.record import trace

    assert transformers.__version__ == environment.transformers
    for row in filter(environment.runs, rows()):
        try:
            footprint = trace(from_json(row.options))
        except MemcalcError as error:
            yield {"row": row.id, "refused": str(error)}
            continue
        result = {"row": row.id, "figures": list(_figures(row, footprint)), "versions": dict(footprint.versions)}
        if row.source == "peft":
            result["reserved_by_length"] = {row.options["seq_len"]: footprint.peak_reserved} | {
                length: trace(from_json({**row.options, "seq_len": length})).peak_reserved for length in OTHER_LENGTHS
            }
        yield result


def _figures(row: Row, footprint: Footprint) -> Iterator[tuple[str, int, int]]:
    """(name, measured, traced) of what both have."""
    phases = {phase.name: phase for phase in footprint.phases}
    pairs: list[tuple[str, int | None, int | None]] = [
        ("peak allocated", row.measured.get("peak_allocated"), footprint.peak_allocated),
        *(
            (f"phase: {phase['name']}", phase["allocated_peak"], phases[phase["name"]].allocated_peak)
            for phase in row.measured.get("phases", ())
        ),
        ("peak reserved", row.measured.get("peak_reserved"), footprint.peak_reserved),
        ("after training", row.measured.get("end_allocated"), footprint.phases[-1].allocated_end),
        ("trainable parameters", row.measured.get("trainable_params"), footprint.trainable_params),
    ]
    for name, measured, traced in pairs:
        if measured is not None and traced is not None:
            yield name, measured, traced


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the tables to this Markdown file.")
@click.option("--only", multiple=True, type=click.Choice(list(ENVIRONMENTS)), help="These versions of transformers.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the environments here; a new one by default.")
@click.option("--inside", "version", hidden=True, help="Run the rows here, in the environment of this version.")
def main(out: Path | None, only: tuple[str, ...], folder: Path | None, version: str | None) -> None:
    """Make environments of older libraries and run the published rows in them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if version is not None:
        for result in inside(ENVIRONMENTS[version]):
            click.echo(json.dumps(result))
        return
    kept = Path(tempfile.mkdtemp()) if folder is None else folder.expanduser()
    found = {}
    for name in only or ENVIRONMENTS:
        click.echo(f"transformers {name}", err=True)
        found[name] = run(ENVIRONMENTS[name], made(ENVIRONMENTS[name], kept))
    known = {row.id: row for row in rows()}
    text = page(found, known)
    click.echo(text)
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(text, encoding="utf-8")
    sys.exit(missed(found, known))


if __name__ == "__main__":
    main()
