"""Find a model or a graphics card by any name that people call it.

The facts stand beside this file as data: models/*.json, a file for each model type, and gpus.json
(JSON because tomllib needs 9 ms for as many cards, json half of one). An entry of theirs names its `sources`.
"""

import json
import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from memcalc.catalog.names import loose
from memcalc.catalog.reading import read_model_config
from memcalc.errors import InvalidWorkload, UnknownName, shown
from memcalc.kernels import Gpu
from memcalc.units import MIB, gib, parse_size

DEFAULT_GPU = "a100-80gb"

_MODELS = os.path.join(os.path.dirname(__file__), "models")
_CARDS = os.path.join(os.path.dirname(__file__), "gpus.json")
_VENDOR_WORDS = ("nvidia", "geforce", "tesla", "quadro", "generation")


@dataclass(frozen=True)
class Model:
    """A model's config.json, and where it comes from."""

    name: str  # the catalog's key, or the path that was given
    config: Mapping[str, Any]
    source: str  # the works that the facts were taken from, or the file's path


def find_model(text: str) -> Model:
    """The model that `text` means: a catalog name, another name of one, a hub id, a size, or a path.

    A path is a folder with config.json, or such a file under any name. A name of the catalog wins over a
    file of the same name: "./7b" is always the file.
    Raises UnknownName with the nearest names, BadFile where a path holds no readable config.
    """
    is_path = text.startswith((".", "/", "~"))
    for normal in () if is_path else (str.lower, loose):  # exact names are cheap to compare, and the usual ones
        wanted = normal(text)
        # the file named like the wanted model first: mostly the only one read
        for file in sorted(_model_files(), key=lambda file: os.path.basename(file)[:-5] not in text.lower()):
            for key, entry in _table(file).items():
                if wanted and wanted in map(normal, _model_names(key, entry)):
                    return Model(key, entry["config"], "; ".join(entry["sources"]))
    if is_path or os.path.exists(text):
        config, file = read_model_config(text)
        return Model(text, config, file)
    raise UnknownName(
        "model",
        text,
        [name.lower() for file in _model_files() for item in _table(file).items() for name in _model_names(*item)],
        "memcalc models lists them, or give a folder with config.json",
    )


def models() -> Iterator[Model]:
    """All models of the catalog."""
    for file in _model_files():
        for key, entry in _table(file).items():
            yield Model(key, entry["config"], "; ".join(entry["sources"]))


def find_gpu(text: str) -> Gpu:
    """The card that `text` means: a key, another name or the driver's name of one, or a bare size ("24GiB").

    A bare size is the default card with that much memory. Raises UnknownName with the nearest names.
    """
    size = parse_size(text)
    if size is not None:
        return _resized(find_gpu(DEFAULT_GPU), text, size)
    cards = _table(_CARDS)
    for normal in (str.lower, _loose_card):
        wanted = normal(text)
        for key, row in cards.items():
            if wanted and wanted in map(normal, _card_names(key, row)):
                return _gpu(key, row)
    known = [name.lower() for key, row in cards.items() for name in _card_names(key, row)]
    raise UnknownName("GPU", text, known, "memcalc gpus lists them, or give its memory, such as 24GiB")


def gpus() -> Iterator[Gpu]:
    """All cards of the catalog."""
    for key, row in _table(_CARDS).items():
        yield _gpu(key, row)


def other_names() -> dict[str, str]:
    """Every further name of the catalog's models and cards (hub ids, sizes, the driver's names) → the key."""
    return {name: key for key, names in _all_names() for name in names if name != key}


def stand_ins() -> dict[str, tuple[str, str]]:
    """What a name means that could mean several: "7b", "a100" → the key, and why this one."""
    tables = [*map(_table, _model_files()), _table(_CARDS)]
    rows = [item for table in tables for item in table.items()]
    return {name: (key, why) for key, row in rows for name, why in row.get("choices", {}).items()}


def _model_files() -> list[str]:
    return sorted(os.path.join(_MODELS, name) for name in os.listdir(_MODELS) if name.endswith(".json"))


@cache
def _table(file: str) -> dict[str, dict[str, Any]]:
    with open(file, encoding="utf-8") as data:
        table: dict[str, dict[str, Any]] = json.load(data)
    return table


def _all_names() -> Iterator[tuple[str, Iterator[str]]]:
    for file in _model_files():
        for key, entry in _table(file).items():
            yield key, _model_names(key, entry)
    for key, row in _table(_CARDS).items():
        yield key, _card_names(key, row)


def _model_names(key: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """All names of an entry; of a hub id also its last part."""
    yield key
    for name in entry["names"]:
        yield name
        if "/" in name:
            yield name.rpartition("/")[2]
    yield from entry.get("choices", ())


def _card_names(key: str, row: Mapping[str, Any]) -> Iterator[str]:
    yield key
    yield row["name"]
    yield from row.get("aliases", ())
    yield from row.get("choices", ())


def _loose_card(text: str) -> str:
    words = text.lower()
    for vendor in _VENDOR_WORDS:
        words = words.replace(vendor, " ")
    return loose(words)


def _gpu(key: str, row: Mapping[str, Any]) -> Gpu:
    """A row of gpus.json.

    Its `mib` is the total that nvidia-smi reports: seen in public prints of it, or derived as GB x 1024, times 15/16
    where error correction is kept in GDDR memory, less 1 MiB for every 32 bits of the memory bus on Ada and on
    Ampere's workstation and server cards. SM counts are the maker's.
    """
    return Gpu(
        key=key,
        name=row["name"],
        capability=(row["capability"][0], row["capability"][1]),
        sm_count=row["sm_count"],
        memory_bytes=row["mib"] * MIB,
        memory_source=row["mib_source"],
        context_bytes=row.get("context_bytes"),
        context_source=row.get("context_source", ""),
    )


def _resized(card: Gpu, text: str, size: int) -> Gpu:
    if size == 0:
        raise InvalidWorkload(f"a GPU of {shown(text)} holds nothing: give its memory, such as 24GiB")
    return card._replace(
        key="".join(text.lower().split()),
        name=f"{gib(size)} with the kernels of {card.name}",
        memory_bytes=size,
        memory_source="given",
        context_bytes=None,
        context_source="",
    )
