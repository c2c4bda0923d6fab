"""PEFT methods, one file each: the file's name is its `--method`. A folder listing is the list.

A method file defines `METHOD`, its class, and may define `IMPLIES`, the options of the workload or of the class that
its name stands for (qlora is lora over an nf4 base, dora is lora with use_dora). Folders hold what methods are made of.
"""

from collections.abc import Mapping
from importlib import import_module
from os import scandir
from os.path import dirname
from typing import Any, NamedTuple

from memcalc.errors import UnknownName
from memcalc.methods.base import Method

_SHARED = ("__init__.py", "base.py", "linears.py")  # files of this folder that are no method's


class MethodFile(NamedTuple):
    METHOD: type[Method]
    IMPLIES: Mapping[str, Any]


def names() -> list[str]:
    """Every method that has a file here, sorted."""
    files = (entry.name for entry in scandir(dirname(__file__)))
    return sorted(name[:-3] for name in files if name.endswith(".py") and name not in _SHARED)


def canonical_name(text: str) -> str:
    """The method's own name for what a user wrote: case, `-` and `_` do not matter."""
    name = str(text).strip().lower().replace("-", "_")
    known = names()
    if name not in known:
        further = "memcalc methods lists them, and memcalc trace runs others that peft has by --peft-config"
        raise UnknownName("method", text, known, further)
    return name


def load(name: str) -> MethodFile:
    """The method's class and what its name implies; imports that one file only."""
    module = import_module(f"memcalc.methods.{name}")
    return MethodFile(module.METHOD, getattr(module, "IMPLIES", {}))
