"""The catalog's data, read once: models/*.json, a file for each model type, and gpus.json.

JSON because tomllib needs 9 ms for as many cards, json half of one. An entry of theirs names its `sources`.
"""

import json
import os.path
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

Entry = Mapping[str, Any]

_MODELS = os.path.join(os.path.dirname(__file__), "models")
_CARDS = os.path.join(os.path.dirname(__file__), "gpus.json")


def model_files() -> list[str]:
    """The files that hold models, by model type."""
    return sorted(os.path.join(_MODELS, name) for name in os.listdir(_MODELS) if name.endswith(".json"))


@cache
def table(file: str) -> dict[str, Entry]:
    """The entries of a file by their keys."""
    with open(file, encoding="utf-8") as data:
        found: dict[str, Entry] = json.load(data)
    return found


def model_entries() -> Iterator[tuple[str, Entry]]:
    """Every model: its key, and what models/*.json say of it."""
    for file in model_files():
        yield from table(file).items()


def cards() -> dict[str, Entry]:
    """Every card: its key, and what gpus.json says of it."""
    return table(_CARDS)


def model_names(key: str, entry: Entry) -> Iterator[str]:
    """All names of an entry; of a hub id also its last part."""
    yield key
    for name in entry["names"]:
        yield name
        if "/" in name:
            yield name.rpartition("/")[2]
    yield from entry.get("choices", ())


def card_names(key: str, row: Entry) -> Iterator[str]:
    """All names of a card, the driver's among them."""
    yield key
    yield row["name"]
    yield from row.get("aliases", ())
    yield from row.get("choices", ())
