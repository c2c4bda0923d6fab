"""Everything that memcalc refuses, with the exit code that the command line returns for it.

MemcalcError
├── InvalidWorkload (2)   options that cannot be, alone or together
├── UnknownName (2)       a model, method, GPU or optimizer that nobody here knows; names the nearest
├── BadFile (2)           a config, profile or suite that cannot be read
├── MissingPackage (3)    an optional dependency is not installed; names the install line
├── NotModelled (3)       real, but not by this command; names one that can
├── RunFailed (4)         the run itself failed: out of memory, crash, timeout
└── DeviceBusy (4)        others use the device that was to be measured
"""

from collections.abc import Iterable


class MemcalcError(Exception):
    """Base of all: the message says what was given, why it cannot be and what to do, in one line."""

    exit_code = 2


class InvalidWorkload(MemcalcError):
    """Options that cannot be, alone or together."""


class UnknownName(MemcalcError):
    """A name that is not known, with the nearest known ones.

    `kind` is what was looked for ("model", "GPU"), `remedy` where all names are listed.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        import difflib  # only an error needs it

        nearest = difflib.get_close_matches(name.lower(), list(dict.fromkeys(known)), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        super().__init__(f"unknown {kind} {shown(name)}{hint}{'; ' if remedy else ''}{remedy}")
        self.nearest = nearest


class BadFile(MemcalcError):
    """A file that cannot be read as what it should be."""

    def __init__(self, path: str, reason: str, line: int | None = None) -> None:
        place = f"{path}:{line}" if line is not None else path
        super().__init__(f"{place}: {reason}")


class MissingPackage(MemcalcError):
    """An optional dependency is missing; `extra` is the extra of ours that brings it."""

    exit_code = 3

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}: pip install 'memcalc[{extra}]'")


class NotModelled(MemcalcError):
    """Real, but this command cannot do it (yet); the message names another way."""

    exit_code = 3


class RunFailed(MemcalcError):
    """The run itself failed: out of memory, a crash, a timeout."""

    exit_code = 4


class DeviceBusy(MemcalcError):
    """Others use the device that was to be measured."""

    exit_code = 4


def shown(value: object, limit: int = 60) -> str:
    """A user's own input, safe to repeat in one line: quoted, control characters escaped, cut short."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
