"""Find a model or a graphics card by any name that people call it."""

import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from memcalc.catalog.names import is_hub_id, loose
from memcalc.catalog.reading import read_model_config
from memcalc.catalog.tables import Entry, card_names, cards, model_entries, model_files, model_names, table
from memcalc.errors import InvalidWorkload, UnknownName, shown
from memcalc.kernels import Gpu
from memcalc.units import MIB, gib, parse_size

DEFAULT_GPU = "a100-80gb"

_VENDOR_WORDS = ("nvidia", "geforce", "tesla", "quadro", "generation")


@dataclass(frozen=True)
class Model:
    """A model's config.json, and where it comes from."""

    name: str  # the catalog's key, the hub id, or the path that was given
    config: Mapping[str, Any]
    source: str  # the works that the facts were taken from, or the file's path


def find_model(text: str) -> Model:
    """The model that `text` means: a catalog name, another name of one, a size, a path, or any other hub id.

    A path is a folder with config.json, or such a file under any name. A name of the catalog wins over a
    file of the same name: "./7b" is always the file. Of a hub id that is neither, config.json alone is fetched.
    Raises UnknownName with the nearest names, BadFile where there is no readable config, MissingPackage.
    """
    is_path = text.startswith((".", "/", "~"))
    for normal in () if is_path else (str.lower, loose):  # exact names are cheap to compare, and the usual ones
        wanted = normal(text)
        # the file named like the wanted model first: mostly the only one read
        for file in sorted(model_files(), key=lambda file: os.path.basename(file)[:-5] not in text.lower()):
            for key, entry in table(file).items():
                if wanted and wanted in map(normal, model_names(key, entry)):
                    return _model(key, entry)
    if is_path or os.path.exists(text):
        config, file = read_model_config(text)
        return Model(text, config, file)
    if is_hub_id(text):
        return _from_hub(text)
    raise _unknown(text, "memcalc models lists them, or give a folder with config.json")


def models() -> Iterator[Model]:
    """All models of the catalog."""
    return (_model(key, entry) for key, entry in model_entries())


def find_gpu(text: str) -> Gpu:
    """The card that `text` means: a key, another name or the driver's name of one, or a bare size ("24GiB").

    A bare size is the default card with that much memory. Raises UnknownName with the nearest names.
    """
    size = parse_size(text)
    if size is not None:
        return _resized(find_gpu(DEFAULT_GPU), text, size)
    for normal in (str.lower, _loose_card):
        wanted = normal(text)
        for key, row in cards().items():
            if wanted and wanted in map(normal, card_names(key, row)):
                return _gpu(key, row)
    known = [name.lower() for key, row in cards().items() for name in card_names(key, row)]
    raise UnknownName("GPU", text, known, "memcalc gpus lists them, or give its memory, such as 24GiB")


def gpus() -> Iterator[Gpu]:
    """All cards of the catalog."""
    return (_gpu(key, row) for key, row in cards().items())


def other_names() -> dict[str, str]:
    """Every further name of the catalog's models and cards (hub ids, sizes, the driver's names) → the key."""
    of_models = ((name, key) for key, entry in model_entries() for name in model_names(key, entry))
    of_cards = ((name, key) for key, row in cards().items() for name in card_names(key, row))
    return {name: key for name, key in chain(of_models, of_cards) if name != key}


def stand_ins() -> dict[str, tuple[str, str]]:
    """What a name means that could mean several: "7b", "a100" → the key, and why this one."""
    rows = chain(model_entries(), cards().items())
    return {name: (key, why) for key, row in rows for name, why in row.get("choices", {}).items()}


def _model(key: str, entry: Entry) -> Model:
    return Model(key, entry["config"], "; ".join(entry["sources"]))


def _from_hub(text: str) -> Model:
    from memcalc.catalog.hub import config_file

    try:
        file = config_file(text)
    except LookupError as absent:
        raise _unknown(text, str(absent)) from None
    config, _ = read_model_config(file)
    return Model(text, config, f"config.json of huggingface.co/{text}")


def _unknown(text: str, remedy: str) -> UnknownName:
    known = [name.lower() for item in model_entries() for name in model_names(*item)]
    return UnknownName("model", text, known, remedy)


def _loose_card(text: str) -> str:
    words = text.lower()
    for vendor in _VENDOR_WORDS:
        words = words.replace(vendor, " ")
    return loose(words)


def _gpu(key: str, row: Entry) -> Gpu:
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
