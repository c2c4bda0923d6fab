"""A config's values, each checked where it is read: the file may hold anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from memcalc.errors import BadFile, shown

LARGEST: Final = 2**31 - 1  # of one dimension: CUDA kernels index with 32 bits
_HUGE: Final = 1e308  # below the largest float


@dataclass(frozen=True, slots=True, repr=False)
class Fields:
    """A checked, read-only view of a config: each getter takes a key and its other spellings.

    The first key that stands there and is not null counts. Without a `default` the key is required.
    Raises BadFile.
    """

    values: Mapping[str, Any]
    source: str  # for messages: the file or the catalog's entry

    def __contains__(self, key: str) -> bool:
        """Whether the key stands there, null or not."""
        return key in self.values

    def raw(self, key: str) -> Any:
        """What stands there, unchecked; None where nothing does."""
        return self.values.get(key)

    def integer(self, *keys: str, default: int | None = None, at_least: int = 0, at_most: int = LARGEST) -> int:
        """A whole number; 4096.0 is one."""
        key, value = self._find(keys, default)
        if not _numeric(value) or not at_least <= value <= at_most or value != int(value):  # NaN is in no range
            raise self._refusal(key, value, f"a whole number from {at_least:,} to {at_most:,}")
        return int(value)

    def number(
        self, *keys: str, default: float | None = None, at_least: float = -_HUGE, at_most: float = _HUGE
    ) -> float:
        """A finite number."""
        key, value = self._find(keys, default)
        if not _numeric(value) or not at_least <= value <= at_most:
            bounds = f" from {at_least:g} to {at_most:g}" if at_most < _HUGE else ""
            raise self._refusal(key, value, f"a finite number{bounds}")
        return float(value)

    def flag(self, *keys: str, default: bool | None = None) -> bool:
        """A JSON true or false, nothing that merely looks like it."""
        key, value = self._find(keys, default)
        if not isinstance(value, bool):
            raise self._refusal(key, value, "true or false")
        return value

    def text(self, *keys: str, default: str | None = None) -> str:
        """A string that is not empty."""
        key, value = self._find(keys, default)
        if not isinstance(value, str) or not value:
            raise self._refusal(key, value, "a name in quotes")
        return value

    def _find(self, keys: tuple[str, ...], default: object) -> tuple[str, object]:
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                return key, value
        if default is None:
            raise BadFile(self.source, self._missing(keys))
        return keys[0], default

    def _missing(self, keys: tuple[str, ...]) -> str:
        model_type = shown(self.values.get("model_type"))
        if isinstance(self.values.get("text_config"), Mapping):
            return (
                f"a config of several models ({model_type}): "
                "save what stands in its text_config as a config.json of its own, for the language model alone"
            )
        return f"{' or '.join(keys)} is missing: not a whole config.json of a {model_type} model"

    def _refusal(self, key: str, value: object, allowed: str) -> BadFile:
        return BadFile(self.source, f"{key} must be {allowed}, not {shown(value)}")


def _numeric(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
