"""Figures that a machine may refuse to give: a value, or None beside the reason. Never a guess."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Unmeasurable(Exception):
    """A figure that this machine does not give; the message is the reason, in one line."""


class Facts:
    """Figures by name; `unavailable` explains each that is None."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.unavailable: dict[str, str] = {}

    def read(self, name: str, figure: Callable[[], T]) -> T | None:
        """Note a figure under `name`, or why there is none."""
        try:
            value = figure()
        except Unmeasurable as refusal:
            self.missing(name, str(refusal))
            return None
        self.values[name] = value
        return value

    def missing(self, name: str, reason: str) -> None:
        """Note that there is no such figure, and why."""
        self.values[name] = None
        self.unavailable[name] = reason

    def note(self, name: str, value: object, otherwise: str) -> None:
        """Note a value under `name`; where it is None, `otherwise` says why."""
        if value is None:
            self.missing(name, otherwise)
        else:
            self.values[name] = value
