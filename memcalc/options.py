"""A dataclass field that is also an option: its flag, its help, the names that people's hands know.

Workload and every method declare their options here, in their own class, once: the command line, the
Python functions and the JSON are made from these fields.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_KEY = "memcalc.option"


@dataclass(frozen=True)
class Option:
    """What the command line needs to know of a field beside its type and default."""

    flag: str  # "--lora-dropout", or "--padded/--no-padded" for a switch
    help: str
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  # further flags, with their dashes
    names: tuple[str, ...] = ()  # further keyword names in Python and JSON


def option(
    default: Any,
    flag: str,
    help: str,
    *,
    choices: Sequence[str] = (),
    aliases: Sequence[str] = (),
) -> Any:
    """A dataclass field with `default`, set by `flag` on the command line."""
    names = tuple(alias.lstrip("-").replace("-", "_") for alias in aliases)
    described = Option(flag, help, tuple(choices), tuple(aliases), names)
    return dataclasses.field(default=default, metadata={_KEY: described})


def options_of(cls: type) -> dict[str, Option]:
    """The options that a dataclass declares, by field name, in order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(cls) if _KEY in field.metadata}
