"""Architectures, one file each, written as transformers writes them: the file's name is its model_type.

A family file defines `MODULES` and `LAYER_MODULES` (submodules in the order in which the real classes
register them), `LAYERS` (the path of the repeated layers), `HEAD`, `ATTENTIONS` (what transformers offers
there, its own choice first), `LEARNED_POSITIONS` (a longer sequence is an error), `read(model) -> Config` and
`forward(m, batch, c) -> Output`.
"""

from collections.abc import Callable
from importlib import import_module
from os import scandir
from os.path import dirname
from typing import Protocol, cast

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled, shown
from memcalc.families.config import Config
from memcalc.tape.builder import Builder
from memcalc.tape.prelude import Batch, Output


class Family(Protocol):
    MODULES: tuple[str, ...]
    LAYER_MODULES: tuple[str, ...]
    LAYERS: str
    HEAD: str
    ATTENTIONS: tuple[str, ...]
    LEARNED_POSITIONS: bool
    read: Callable[[Model], Config]
    forward: Callable[[Builder, Batch, Config], Output]


def names() -> list[str]:
    """Every family that has a file here, sorted."""
    files = (entry.name for entry in scandir(dirname(__file__)))
    return sorted(name[:-3] for name in files if name.endswith(".py") and name not in ("__init__.py", "config.py"))


def find(model_type: object) -> Family:
    """The family of this model_type. Raises NotModelled where there is none."""
    if model_type not in names():
        raise NotModelled(
            f"estimate does not write models of type {shown(model_type)}: memcalc trace runs the real one"
        )
    return cast(Family, import_module(f"memcalc.families.{model_type}"))
