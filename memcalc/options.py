"""A dataclass field that is also an option: its flag, its help, the names that people's hands know.

Workload and every method declare their options here, in their own class, once: the command line, the
Python functions and the JSON are made from these fields.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memcalc.errors import InvalidWorkload, shown

LARGEST = 2**31 - 1  # of any one size: indices of CUDA kernels are 32 bits wide

_KEY = "memcalc.option"


class Option(NamedTuple):
    """What the command line needs to know of a field beside its type and default."""

    flag: str  # "--lora-dropout", or "--padded/--no-padded" for a switch
    help: str
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  # further flags, with their dashes
    names: tuple[str, ...] = ()  # further keyword names in Python and JSON
    least: int = 1  # of a whole number
    pairs: bool = False  # a list of NAME=NUMBER, which Python and JSON may give as a mapping too
    size: bool = False  # a method's: how many parameters train is set by it

    @property
    def name(self) -> str:
        """The flag as a message names it."""
        return self.flag.split("/")[0]


def option(
    default: Any,
    flag: str,
    help: str,
    *,
    choices: Sequence[str] = (),
    aliases: Sequence[str] = (),
    least: int = 1,
    pairs: bool = False,
    size: bool = False,
) -> Any:
    """A dataclass field with `default`, set by `flag` on the command line."""
    names = tuple(alias.lstrip("-").replace("-", "_") for alias in aliases)
    described = Option(flag, help, tuple(choices), tuple(aliases), names, least, pairs, size)
    return dataclasses.field(default=default, metadata={_KEY: described})


def options_of(cls: type) -> dict[str, Option]:
    """The options that a dataclass declares, by field name, in order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(cls) if _KEY in field.metadata}


def names_of(cls: type) -> dict[str, str]:
    """Every name under which a field may be given → the field's name."""
    return {alias: field for field, described in options_of(cls).items() for alias in (field, *described.names)}


def coerced(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` values as the fields' types want them, a field's type being its default's.

    What JSON and people write (8.0 for 8, "a,b" for a list, none) is taken; anything else raises InvalidWorkload.
    """
    described, defaults = options_of(cls), {field.name: field.default for field in dataclasses.fields(cls)}
    return {name: _coerced(value, described[name], defaults[name]) for name, value in given.items()}


def _coerced(value: object, described: Option, default: object) -> object:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InvalidWorkload(f"{described.name} is a switch: true or false, not {shown(value)}")
        return value
    if isinstance(default, int):
        return _whole(value, described)
    if isinstance(default, float):
        return number(value, described.name)
    if default is None:
        return None if value is None or value == "none" else _above_zero(value, described.name)
    if described.pairs and isinstance(value, Mapping):
        value = [f"{name}={number}" for name, number in value.items()]
    if isinstance(default, tuple):
        return _list(value, described.name)
    return _choice(value, described)


def _whole(value: object, described: Option) -> int:
    least = described.least
    if isinstance(value, bool) or not isinstance(value, int | float) or not _within(value, least):
        raise InvalidWorkload(
            f"{described.name} must be a whole number from {least} to {LARGEST:,}, not {shown(value)}"
        )
    return int(value)


def _within(value: float, least: int) -> bool:
    return math.isfinite(value) and value == int(value) and least <= value <= LARGEST


def number(value: object, name: str) -> float:
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise InvalidWorkload(f"{name} must be a finite number, not {shown(value)}")
    if value < 0:
        raise InvalidWorkload(f"{name} must be at least 0, not {shown(value)}")
    return float(value)


def _above_zero(value: object, name: str) -> float:
    checked = number(value, name)
    if not checked:
        raise InvalidWorkload(f"{name} must be above 0, or none")
    return checked


def _list(value: object, name: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | int) for item in items):
        raise InvalidWorkload(f"{name} is a comma list of names, not {shown(value)}")
    parts = tuple(part.strip() for item in items for part in str(item).split(","))
    if "" in parts:
        raise InvalidWorkload(f"{name} {shown(value)} has an empty name in its list")
    return parts


def _choice(value: object, described: Option) -> str:
    if not isinstance(value, str):
        raise InvalidWorkload(f"{described.name} is a word, not {shown(value)}")
    if not described.choices:
        return value
    for choice in described.choices:
        if value.lower().replace("_", "-") == choice.lower().replace("_", "-"):
            return choice
    raise InvalidWorkload(f"{described.name} {shown(value)} is not one of {', '.join(described.choices)}")
