"""A suite: a TOML file of cases to profile, every one of them checked before the first begins.

title = "core"                        # all of the header is needed
purpose = "what it is for"
minutes = 10                          # that it is expected to take
memory_gib = 40                       # that its largest case is expected to need

timeout = 300                         # seconds for each case; 300 where it is not given
[defaults]                            # options of every case, named as on the command line
seq-len = 512
[[grid]]                              # all combinations of its lists
model = ["llama-3.2-1b", "gpt2"]
variants = [{ method = "full" }, { method = "lora", rank = 16 }]
exclude = [{ model = "gpt2", method = "lora" }]
to-the-limit = true                   # out of memory is one of the answers that are looked for
[[case]]                              # one case
model = "./configs/tiny"              # a path that begins with a dot is meant from the suite's folder
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memcalc.catalog.find import find_model
from memcalc.catalog.reading import LARGEST_FILE, place
from memcalc.errors import BadFile, InvalidWorkload, MemcalcError, shown
from memcalc.profiling.grid import MOST, combinations, normal
from memcalc.workload import Workload

TIMEOUT = 300.0  # seconds
_HEADER = ("title", "purpose", "minutes", "memory_gib")
_KEYS = (*_HEADER, "timeout", "defaults", "grid", "case")


@dataclass(frozen=True)
class SuiteCase:
    """One case: its name within the suite, and what it runs."""

    name: str  # the options that make it this one
    workload: Workload
    to_the_limit: bool = False  # out of memory is an answer, not a failure


@dataclass(frozen=True)
class Suite:
    """What a suite's file says."""

    title: str
    purpose: str
    minutes: float
    memory_gib: float
    timeout: float
    cases: tuple[SuiteCase, ...]


def read_suite(path: str) -> Suite:
    """The suite in a file, all its cases checked. Raises BadFile with the file, the place in it and the reason."""
    data = _toml(path)
    try:
        header = _header(data)
        defaults = normal(data.get("defaults", {}), "[defaults]")
    except InvalidWorkload as error:
        raise BadFile(place(path), str(error)) from None
    cases: dict[Any, SuiteCase] = {}
    for where, options, limit in _all_options(data, path):
        name = " ".join(f"{key.replace('_', '-')}={value}" for key, value in options.items() if key not in defaults)
        at = f"{where} ({name if len(name) <= 160 else name[:159] + '…'})"
        try:
            case = SuiteCase(name, _workload({**defaults, **options}, os.path.dirname(path)), limit)
        except MemcalcError as error:
            raise BadFile(place(path), f"{at}: {error}") from None
        known = cases.setdefault(repr(case.workload.to_json()), case)
        if known is not case:
            raise BadFile(place(path), f"{at}: the same workload as {known.name}")
    if not cases:
        raise BadFile(place(path), "holds no cases: [[case]] or [[grid]] tables")
    return Suite(**header, cases=tuple(cases.values()))


def _toml(path: str) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadFile(place(path), "not a regular file")
        with open(path, "rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise BadFile(place(path), f"larger than {LARGEST_FILE:,} bytes: too large to be a suite")
        return tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise BadFile(place(path), f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadFile(place(path), "not UTF-8 text") from None
    except RecursionError:
        raise BadFile(place(path), "nested too deep: not a suite") from None
    except ValueError as error:  # tomllib's own error, numbers of too many digits, a null byte in the path
        raise BadFile(place(path), f"not TOML: {str(error).splitlines()[0]}") from None


def _header(data: Mapping[str, Any]) -> dict[str, Any]:
    for key in data:
        if key not in _KEYS:
            raise InvalidWorkload(f"the key {shown(key)} is none of {', '.join(_KEYS)}")
    header = {name: data.get(name) for name in _HEADER} | {"timeout": data.get("timeout", TIMEOUT)}
    for name, value in header.items():
        if name in ("title", "purpose"):
            if not isinstance(value, str) or not value.strip():
                raise InvalidWorkload(f"{name} must be a text, not {shown(value)}")
        elif type(value) not in (int, float) or not 0 < value <= 1e6:  # type: ignore[operator] # a number by then
            raise InvalidWorkload(f"{name} must be a number above 0, not {shown(value)}")
    return header


def _all_options(data: Mapping[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Where a case stands, its own options, and whether it goes to the limit."""
    count = 0
    for kind in ("grid", "case"):
        tables = data.get(kind, [])
        if not isinstance(tables, list):
            raise BadFile(place(path), f"{kind} must be tables: write [[{kind}]], not [{kind}]")
        for at, table in enumerate(tables, 1):
            where = f"[[{kind}]] {at}"
            try:
                own = normal(table, where)
                limit = own.pop("to_the_limit", False)
                if not isinstance(limit, bool):
                    raise InvalidWorkload(f"to-the-limit is true or false, not {shown(limit)}")
                single = kind == "case"
                excluded, variants = (None, None) if single else (own.pop("exclude", None), own.pop("variants", None))
                for options in [own] if single else combinations(own, excluded, variants):
                    count += 1
                    if count > MOST:
                        raise InvalidWorkload(f"a suite holds at most {MOST:,} cases")
                    yield where, options, limit
            except InvalidWorkload as error:
                raise BadFile(place(path), f"{where}: {error}") from None


def _workload(options: dict[str, Any], folder: str) -> Workload:
    """What these options mean; a model beside the suite keeps the name that the suite gives it, wherever that lies."""
    name = options.pop("model", None)
    if not isinstance(name, str):
        raise InvalidWorkload("model is missing, or no text")
    model: Any = name
    if name.startswith("."):
        model = replace(find_model(os.path.abspath(os.path.join(folder, name))), name=name)
    return Workload.of(model, **options)
