"""Whether estimate's stream is trace's for every method over five families, checkpointed or not, in bf16 and autocast.

python -m tests.method_streams --out reports/method_streams.md
python -m tests.method_streams --only galore --only lisa
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from memcalc import methods
from memcalc.comparing import first_difference
from memcalc.errors import MemcalcError
from tests.producers import estimated, traced
from tests.tiny import tiny

FAMILIES: Final = ("llama", "qwen2", "gpt2", "opt", "bloom")
_CHECKPOINTING: Final[tuple[Mapping[str, Any], ...]] = (
    {"checkpointing": False},
    {"checkpointing": True, "reentrant": False},
    {"checkpointing": True, "reentrant": True},
)
_PRECISION: Final = ("none", "bf16")  # of autocast, over weights in bf16
_COUNTS: Final = ("total_params", "trainable_params", "checkpoint_bytes")


class Cell(NamedTuple):
    """What one method does over one family."""

    method: str
    family: str
    births: tuple[int, ...]  # of each step that is identical
    refused: tuple[str, ...]  # why estimate does not write a step, or peft refuses it
    exceptions: tuple[str, ...]  # where the two part


def cell(method: str, family: str) -> Cell:
    """Every step of a method over a family."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    births, refused, exceptions = [], [], []
    for checkpointing, amp in product(_CHECKPOINTING, _PRECISION):
        label = f"{_words(checkpointing)}{', autocast' * (amp != 'none')}"
        try:
            w = tiny(family, method, amp=amp, **checkpointing)
            mine = estimated(w)
        except MemcalcError as error:
            refused.append(str(error))
            continue
        try:
            real = traced(w)
        except MemcalcError as error:
            exceptions.append(f"{label}: trace refuses: {error}")
            continue
        apart = first_difference(mine.timeline, real.timeline, ("estimate", "trace"))
        counts = [name for name in _COUNTS if getattr(mine, name) != getattr(real, name)]
        if apart is None and not counts:
            births.append(len(mine.timeline.nbytes))
        else:
            exceptions.append(f"{label}: {apart.summary if apart else ', '.join(counts)}")
    return Cell(method, family, tuple(births), tuple(dict.fromkeys(refused)), tuple(exceptions))


def _words(checkpointing: Mapping[str, Any]) -> str:
    if not checkpointing["checkpointing"]:
        return "no checkpointing"
    return "reentrant checkpointing" if checkpointing["reentrant"] else "checkpointing"


def page(cells: list[Cell]) -> Iterator[str]:
    """The table in Markdown, line by line."""
    births = [count for one in cells for count in one.births]
    exceptions = [(one, why) for one in cells for why in one.exceptions]
    yield "# Methods: estimate against trace\n"
    made_by = "python -m tests.method_streams --out reports/method_streams.md"
    yield f"Made by `{made_by}`, over tiny models of three layers.\n"
    yield (
        "Each method over each family: without checkpointing, with it, with the reentrant kind, each in bf16 and under "
        "bf16 autocast. Identical: births agree in order and bytes, the same blocks die between any two of them, and "
        "parameters and checkpoint bytes are equal. A cell counts identical steps and, behind the dash, refused ones.\n"
    )
    yield f"{len(births):,} of {len(births) + len(exceptions):,} steps identical ({sum(births):,} births).\n"
    yield f"| method | {' | '.join(FAMILIES)} |\n|---|{'---|' * len(FAMILIES)}"
    by_place = {(one.method, one.family): one for one in cells}
    for method in dict.fromkeys(one.method for one in cells):
        yield f"| {method} | {' | '.join(_shown(by_place[method, family]) for family in FAMILIES)} |"
    yield "\n## Exceptions\n"
    yield "\n".join(f"- {one.method}, {one.family}: {why}" for one, why in exceptions) or "None."
    yield "\n## Refused\n"
    reasons: dict[str, list[str]] = {}
    for one in cells:
        for why in one.refused:
            reasons.setdefault(why, []).append(f"{one.method} over {one.family}")
    yield "\n".join(f"- {', '.join(where)}: {why}" for why, where in reasons.items()) or "None."


def _shown(one: Cell) -> str:
    steps = len(_CHECKPOINTING) * len(_PRECISION)
    refused = steps - len(one.births) - len(one.exceptions)
    return f"{len(one.births)}{f' – {refused}' if refused else ''}{' **differs**' if one.exceptions else ''}"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file.")
@click.option("--only", multiple=True, help="These methods only.")
def main(out: Path | None, only: tuple[str, ...]) -> None:
    """Hold every method's stream against the real one's."""
    asked = [(method, family) for method in only or methods.names() for family in FAMILIES]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        cells = list(pool.map(cell, *zip(*asked, strict=True)))
    text = "\n".join(page(cells)) + "\n"
    if out is None:
        click.echo(text)
    else:
        out.write_text(text, encoding="utf-8")
    sys.exit(any(one.exceptions for one in cells))


if __name__ == "__main__":
    main()
