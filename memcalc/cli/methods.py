"""`memcalc methods`."""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import click

from memcalc.cli.listing import Column, Entry, Listing, listing_options, search, show

EXAMPLES = ("memcalc methods", "memcalc methods qlora", "memcalc methods --json")
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_CITATION = re.compile(r"\s*\([^()]*arXiv[^()]*\)")
_ON_TOP = {"neftune": ("neftune_alpha", "arXiv:2310.05914")}  # options of Workload that go with any method


@click.command(cls=Listing, examples=EXAMPLES)
@listing_options
def methods(words: tuple[str, ...], as_json: bool) -> None:
    """List the fine-tuning methods that --method knows, with their options. WORDS narrow the list."""
    columns = [
        Column("method", lambda entry: entry["name"]),
        Column("what it is", lambda entry: entry["summary"], wraps=True),
        Column("paper", lambda entry: entry["paper"] or ""),
    ]
    show(search("method", _entries(), words, _texts), as_json, columns, _details)


def _entries() -> Iterator[Entry]:
    from memcalc import methods
    from memcalc.workload import Workload

    for name in methods.names():
        file = methods.load(name)
        module = sys.modules[f"memcalc.methods.{name}"]
        own = file.METHOD.__module__ == module.__name__  # else the name stands for another's class
        text = (file.METHOD if own else module).__doc__ or ""
        yield _entry(name, text, _options(file.METHOD), file.IMPLIES)
    for name, (option, paper) in _ON_TOP.items():
        described = [each for each in _options(Workload) if each["name"] == option]
        if described:
            summary = f"an option of any method: {described[0]['help']}"
            yield {**_entry(name, summary, described, {}), "paper": paper}


def _entry(name: str, text: str, options: list[Entry], implies: Mapping[str, Any]) -> Entry:
    paper = _PAPER.search(text)
    first, *_ = _CITATION.sub("", " ".join(text.split()), count=1).split(". ")
    return {
        "name": name,
        "summary": first.removesuffix("."),
        "paper": paper[0] if paper else None,
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
    return [entry["name"], entry["summary"]]


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
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
