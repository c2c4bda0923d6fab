"""PEFT methods, one file each: the file's name is its `--method`. A folder listing is the list.

A method file defines `METHOD`, its class, and may define `IMPLIES`, the workload options that its name
stands for (qlora is lora over an nf4 base).
"""

from collections.abc import Mapping
from importlib import import_module
from os import scandir
from os.path import dirname
from typing import Any, NamedTuple

from memcalc.errors import UnknownName
from memcalc.methods.base import Method


class MethodFile(NamedTuple):
    METHOD: type[Method]
    IMPLIES: Mapping[str, Any]


def names() -> list[str]:
    """Every method that has a file here, sorted."""
    files = (entry.name for entry in scandir(dirname(__file__)))
    return sorted(name[:-3] for name in files if name.endswith(".py") and name not in ("__init__.py", "base.py"))


def canonical_name(text: str) -> str:
    """The method's own name for what a user wrote: case, `-` and `_` do not matter."""
    name = str(text).strip().lower().replace("-", "_")
    known = names()
    if name not in known:
        raise UnknownName("method", text, known, "memcalc methods lists them")
    return name


def load(name: str) -> MethodFile:
    """The method's class and what its name implies; imports that one file only."""
    module = import_module(f"memcalc.methods.{name}")
    return MethodFile(module.METHOD, getattr(module, "IMPLIES", {}))
