"""PEFT methods, one file each: the file's name is its `--method`. A folder listing is the list.

A method file defines `METHOD`, its class, and may define `IMPLIES`, the options of the workload or of the class that
its name stands for (qlora is lora over an nf4 base, dora is lora with use_dora). Folders hold what methods are made of.
"""

from collections.abc import Mapping
from importlib import import_module
from os import scandir
from os.path import dirname
from typing import Any, NamedTuple

from memcalc.errors import NotModelled, UnknownName
from memcalc.methods.base import Method

# Methods of the field that have a name here and no file yet.
_AWAITED = frozenset(
    (  # noqa: SIM905 - a list of words reads better in lines
        "freeze bitfit ln_tuning diff_pruning prompt_tuning multitask_prompt_tuning p_tuning prefix_tuning "
        "p_tuning_v2 adaption_prompt houlsby pfeiffer parallel_adapter adapter_fusion adapter_drop mam unipelt "
        "lora_plus rslora dora pissa loftq adalora vera loha lokr oft boft ia3 relora longlora randlora hra miss "
        "fourierft vblora trainable_tokens beft shira galore lisa badam llama_pro mixture_of_depths osf "
    ).split()
)


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
    if name in _AWAITED - set(known):
        raise NotModelled(f"--method {name} is not written yet: memcalc trace runs peft's methods by --peft-config")
    if name not in known:
        raise UnknownName("method", text, known, "memcalc methods lists them")
    return name


def load(name: str) -> MethodFile:
    """The method's class and what its name implies; imports that one file only."""
    module = import_module(f"memcalc.methods.{name}")
    return MethodFile(module.METHOD, getattr(module, "IMPLIES", {}))
