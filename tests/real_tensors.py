"""trace's recorder over the meta device against the same recorder over real CPU tensors: does the same step happen?

python -m tests.real_tensors --out reports/real_tensors.md                 every method of the installed peft; minutes
python -m tests.real_tensors --only qlora --only OFT --family llama

Nothing of CUDA's own is added on either side. Loading is left out, and what a host does for itself
(tests.tracing.steps).
"""

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final
from unittest import mock

import click

from memcalc.catalog.find import Model
from memcalc.comparing import first_difference
from memcalc.errors import MemcalcError
from memcalc.importers import peft as importer
from memcalc.tracing.record import record
from memcalc.workload import Workload
from tests.peft_matrix import REFUSED_BY_TRACE, config_of, types
from tests.tiny import TINY
from tests.tracing.steps import steps_of

FAMILIES: Final = ("llama", "qwen2", "bloom", "gpt2", "gemma2")
OURS: Final = ("full", "qlora")  # methods that are no type of peft's
CHECKPOINTING: Final[Mapping[str, Mapping[str, bool]]] = {
    "kept": {},
    "checkpointed": {"checkpointing": True},
    "reentrant": {"checkpointing": True, "reentrant": True},
}
EXPLAINED: Final[Mapping[str, str]] = {
    "CPT": "the prompt's labels and types are made on the host, which here is the device: trace takes it for another"
}
_STEP: Final[Mapping[str, Any]] = {"batch": 2, "seq_len": 16, "dtype": "fp32", "device": "cpu", "history": "none"}


@dataclass(frozen=True)
class Outcome:
    """One step under both recorders."""

    method: str
    family: str
    checkpointing: str
    verdict: str  # identical, differs, refused
    events: int = 0
    why: str = ""


def workload_of(method: str, family: str, checkpointing: str) -> Workload:
    """A step of 2 × 16 tokens."""
    model = Model(f"tiny-{family}", TINY[family], "tests/tiny.py")
    options = {**_STEP, **CHECKPOINTING[checkpointing]}
    if method not in OURS:
        return importer.workload(model, config_of(method, family), **options)
    unless_said = {"checkpointing": False} if method == "qlora" else {}
    return Workload.of(model, method, **{**unless_said, **options})


def compared(method: str, family: str, checkpointing: str) -> Outcome:
    """The same step on meta and on real tensors. A refusal is the real side's: there nothing of ours is in the way."""
    case = (method, family, checkpointing)
    try:
        workload = workload_of(*case)
        with mock.patch(
            "memcalc.tracing.record.refuse"
        ):  # bitsandbytes has CPU kernels, though no figure is made of them
            real = steps_of(record(workload, "cpu").timeline)
    except MemcalcError as error:
        return Outcome(*case, "refused", why=str(error))
    try:
        with mock.patch("memcalc.tracing.record.refuse"):
            meta = steps_of(record(workload).timeline)
    except MemcalcError as error:
        return Outcome(*case, "differs", why=str(error))
    difference = first_difference(meta, real, ("meta", "cpu"))
    why = "" if difference is None else difference.summary
    return Outcome(*case, "differs" if why else "identical", len(real.events), why)


def outcomes(methods: tuple[str, ...], families: tuple[str, ...]) -> Iterator[Outcome]:
    """Every method over every family, with and without checkpointing."""
    for case in product(methods, families, CHECKPOINTING):
        yield compared(*case)


def all_methods() -> tuple[str, ...]:
    """Ours and the installed peft's, but those that trace refuses in one line, and XLORA, which mixes trained ones."""
    return (*OURS, *(peft_type for peft_type in types() if peft_type not in (*REFUSED_BY_TRACE, "XLORA", "SHIRA")))


def page(found: list[Outcome]) -> str:
    """The table as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: list[Outcome]) -> Iterator[str]:
    import peft
    import torch
    import transformers

    counts = Counter(outcome.verdict for outcome in found)
    events = sum(outcome.events for outcome in found if outcome.verdict == "identical")
    yield "# Meta tensors against real ones"
    yield ""
    yield (
        "Made by `python -m tests.real_tensors --out reports/real_tensors.md`. A step of a tiny model on the CPU, "
        "recorded once with real tensors and once on meta. Identical: births agree in order and bytes, and the same "
        "blocks die between any two of them. A cell counts births and deaths: without checkpointing, with it, "
        "with the reentrant kind."
    )
    yield ""
    yield f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}."
    yield ""
    yield f"{counts['identical']} of {counts['identical'] + counts['differs']} steps identical ({events:,} events)."
    yield f"{counts['refused']} further ones are refused with real tensors too."
    yield ""
    yield "| method | " + " | ".join(FAMILIES) + " |"
    yield "|---|" + "---|" * len(FAMILIES)
    for method in dict.fromkeys(outcome.method for outcome in found):
        mine = [outcome for outcome in found if outcome.method == method]
        cells = [_cell([outcome for outcome in mine if outcome.family == family]) for family in FAMILIES]
        yield f"| {method} | " + " | ".join(cells) + " |"
    for verdict, title in (("differs", "Different"), ("refused", "Refused")):
        reasons: dict[tuple[str, str], list[str]] = {}
        for outcome in found:
            if outcome.verdict == verdict:
                reasons.setdefault((outcome.method, outcome.why), []).append(_case(outcome))
        if reasons:
            yield from ("", f"## {title}", "")
            yield from (
                f"- {_reason(method, why, verdict)}: {'; '.join(cases)}" for (method, why), cases in reasons.items()
            )


def _cell(outcomes: list[Outcome]) -> str:
    if len({outcome.verdict for outcome in outcomes} - {"identical"}) == 1 and all(not o.events for o in outcomes):
        return outcomes[0].verdict
    return ", ".join(f"{o.events:,}" if o.verdict == "identical" else f"**{o.verdict}**" for o in outcomes)


def _reason(method: str, why: str, verdict: str) -> str:
    explained = f" ({EXPLAINED[method]})" if verdict == "differs" and method in EXPLAINED else ""
    return f"{method}{explained}: {why}"


def _case(outcome: Outcome) -> str:
    return f"{outcome.family} {outcome.checkpointing}"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file.")
@click.option("--only", multiple=True, help="full, qlora or a peft type; repeat it for more.")
@click.option("--family", multiple=True, type=click.Choice(FAMILIES))
def main(out: Path | None, only: tuple[str, ...], family: tuple[str, ...]) -> None:
    """Hold trace's recorder against real tensors."""
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits
    found = []
    for outcome in outcomes(only or all_methods(), family or FAMILIES):
        found.append(outcome)
        shown = f"{outcome.events:6} {outcome.verdict:10} {outcome.why}".rstrip()
        click.echo(f"{outcome.method:24} {outcome.family:7} {outcome.checkpointing:12} {shown}")
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page(found), encoding="utf-8")
    sys.exit(any(outcome.verdict == "differs" and outcome.method not in EXPLAINED for outcome in found))


if __name__ == "__main__":
    main()
