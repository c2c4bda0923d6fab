"""`memcalc methods`: those that there are; with --model, how they compare on it."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import click

from memcalc.cli.listing import Column, Entry, listing_options, search, show
from memcalc.cli.options import MethodsCommand
from memcalc.errors import InvalidWorkload

EXAMPLES = (
    "memcalc methods",
    "memcalc methods qlora",
    "memcalc methods --json",
    "memcalc methods --model 1.3b --only full,bitfit,lora,qlora",
    "memcalc methods --model llama-3.2-1b --seq-len 512 --rank 16 --target all-linear --json",
)
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_CITATION = re.compile(r"\s*\([^()]*arXiv[^()]*\)")
_ON_TOP = {"neftune": ("neftune_alpha", "arXiv:2310.05914")}  # options of Workload that go with any method


@click.command(cls=MethodsCommand, examples=EXAMPLES)
@listing_options
def methods(
    words: tuple[str, ...], as_json: bool, model: str | None, only: Sequence[str], options: Mapping[str, Any]
) -> None:
    """List the fine-tuning methods that --method knows, with their options. WORDS narrow the list.

    With --model they are compared on it: parameters trained, stored and changed, memory, backward, inference.
    """
    found = [entry for entry in search("method", _entries(), words, _texts) if not only or entry["name"] in only]
    if model is not None:
        names = [entry["name"] for entry in found if entry["type"] is not None]
        _compare(model, [name for name in only if name in names] if only else names, options, as_json)
        return
    if options:
        flag = f"--{next(iter(options)).replace('_', '-')}"
        raise InvalidWorkload(f"{flag} is of a workload: give --model as well, to compare methods on it")
    columns = [
        Column("method", lambda entry: entry["name"]),
        Column("what it is", lambda entry: entry["summary"], wraps=True),
        Column("paper", lambda entry: entry["paper"] or ""),
    ]
    show(found, as_json, columns, _details)


def _compare(model: str, names: Sequence[str], options: Mapping[str, Any], as_json: bool) -> None:
    from memcalc.cli.show import printed, progress
    from memcalc.planning.survey import survey

    with progress(len(names)) as tell:
        compared = survey(model, names, options, tell)
    if as_json:
        click.echo(json.dumps(compared.to_json()))
        return
    from memcalc.reporting import survey as reporting

    printed(reporting.compared(compared, on_gpu="gpu" in options))


def _entries() -> Iterator[Entry]:
    from memcalc import methods
    from memcalc.workload import Workload

    for name in methods.names():
        file = methods.load(name)
        module = sys.modules[f"memcalc.methods.{name}"]
        own = file.METHOD.__module__ == module.__name__  # else the name stands for another's class
        text = (file.METHOD if own else module).__doc__ or ""
        yield _entry(name, text, file.METHOD.kind, _options(file.METHOD), file.IMPLIES)
    for name, (option, paper) in _ON_TOP.items():
        described = [each for each in _options(Workload) if each["name"] == option]
        if described:
            summary = f"an option of any method: {described[0]['help']}"
            yield {**_entry(name, summary, None, described, {}), "paper": paper}


def _entry(name: str, text: str, kind: str | None, options: list[Entry], implies: Mapping[str, Any]) -> Entry:
    paper = _PAPER.search(text)
    first, *_ = _CITATION.sub("", " ".join(text.split()), count=1).split(". ")
    return {
        "name": name,
        "summary": first.removesuffix("."),
        "paper": paper[0] if paper else None,
        "type": kind,
        "options": options,
        "implies": dict(implies),
    }


def _options(cls: type) -> list[Entry]:
    from memcalc.options import options_of

    defaults = {field.name: field.default for field in fields(cls)}
    return [
        {
            "name": name,
            "flag": described.name,
            "aliases": list(described.aliases),
            "default": list(default) if isinstance(default := defaults[name], tuple) else default,
            "choices": list(described.choices),
            "help": described.help,
        }
        for name, described in options_of(cls).items()
    ]


def _texts(entry: Entry) -> list[str]:
    return [entry["name"], entry["summary"], entry["type"] or ""]


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    for option in entry["options"]:
        default = option["default"]
        shown = "" if default in (None, []) else f"  [{_words(default)}]"
        yield option["flag"], f"{option['help']}{shown}"
    for name, value in entry["implies"].items():
        yield "implies", f"--{name.replace('_', '-')} {_words(value)}"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
