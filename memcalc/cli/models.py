"""`memcalc models`."""

from collections.abc import Iterator
from typing import Any

import click

from memcalc.cli.listing import Column, Entry, Listing, listing_options, search, show

EXAMPLES = ("memcalc models", "memcalc models llama 8b", "memcalc models 7b", "memcalc models gemma --json")
_TRACE_ONLY = "* estimate does not write this family: memcalc trace runs the real model"


@click.command(cls=Listing, examples=EXAMPLES)
@listing_options
def models(words: tuple[str, ...], as_json: bool) -> None:
    """List the models that --model knows by name. WORDS narrow the list: names, hub ids, sizes, families."""
    found = search("model", _entries(), words, _texts)
    marked = any(not entry["estimate"] for entry in found)
    show(found, as_json, _columns(), _details, _TRACE_ONLY if marked else "")


def _entries() -> Iterator[Entry]:
    from memcalc import families
    from memcalc.catalog.fields import Fields
    from memcalc.catalog.parameters import total_parameters
    from memcalc.catalog.tables import model_entries

    written = families.names()
    for key, entry in model_entries():
        config = Fields(entry["config"], key)
        family = config.text("model_type")
        yield {
            "name": key,
            "hub_ids": [name for name in entry["names"] if "/" in name],
            "aliases": [name for name in entry["names"] if "/" not in name],
            "stands_for": entry.get("choices", {}),
            "family": family,
            "estimate": family in written,
            "parameters": total_parameters(config),
            "layers": config.integer("num_hidden_layers", "n_layer"),
            "hidden": config.integer("hidden_size", "n_embd"),
            "vocab": config.integer("vocab_size"),
            "sources": entry["sources"],
        }


def _texts(entry: Entry) -> list[str]:
    return [entry["name"], *entry["hub_ids"], *entry["aliases"], *entry["stands_for"], entry["family"]]


def _columns() -> list[Column]:
    from memcalc.units import count

    def size(entry: Entry) -> str:
        return count(entry["parameters"]) if entry["parameters"] else "–"

    def figure(name: str) -> Column:
        return Column(name, lambda entry: str(entry[name]), figure=True)

    family = Column("family", lambda entry: entry["family"] + ("" if entry["estimate"] else "*"))
    figures = [Column("parameters", size, figure=True), figure("layers"), figure("hidden"), figure("vocab")]
    return [Column("model", _name), *figures, family]


def _name(entry: Entry) -> str:
    name: str = entry["name"]
    return name


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    parameters: Any = entry["parameters"]
    if parameters:
        yield "parameters", f"{parameters:,}"
    if entry["hub_ids"]:
        yield "on the hub", ", ".join(entry["hub_ids"])
    if entry["aliases"]:
        yield "also", ", ".join(entry["aliases"])
    for name, why in entry["stands_for"].items():
        yield f"also {name}", why
    yield "sources", "; ".join(entry["sources"])
