"""Footprints as a pandas DataFrame."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memcalc.errors import MissingPackage
from memcalc.footprint import LEVELS, Footprint

if TYPE_CHECKING:
    from pandas import DataFrame

_LEFT_OUT = ("model_config",)  # of a workload: too much for a cell


def to_frame(footprints: Iterable[Footprint]) -> "DataFrame":
    """A row for each footprint, a column for each option, level, category and phase that any of them has."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingPackage("pandas", "report") from None
    rows = list(footprints)
    options = _columns([dict(_options(footprint)) for footprint in rows])
    nbytes = _columns([dict(_levels(footprint)) for footprint in rows])
    return pd.DataFrame(
        {
            **{name: pd.array(values, "Int64") if _whole(values) else values for name, values in options.items()},
            **{name: pd.array(values, "Int64") for name, values in nbytes.items()},
        }
    )


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _whole(values: list[Any]) -> bool:
    """Whether a column is of whole numbers, which stay whole where some are missing."""
    kinds = {type(value) for value in values if value is not None}
    return kinds == {int}


def _options(footprint: Footprint) -> Iterator[tuple[str, Any]]:
    yield "producer", footprint.producer
    yield from ((name, _plain(value)) for name, value in footprint.workload.items() if name not in _LEFT_OUT)
    yield from ((name, getattr(footprint, name)) for name in ("peak_phase", "outcome", "seconds"))


def _levels(footprint: Footprint) -> Iterator[tuple[str, int | None]]:
    yield from ((name, getattr(footprint, name)) for name in LEVELS)
    yield from ((f"at_peak_{category}", nbytes) for category, nbytes in (footprint.at_peak or {}).items())
    for phase in footprint.phases:
        yield from ((f"{phase.name}_{level}", value) for level, value in phase._asdict().items() if level != "name")


def _plain(value: Any) -> Any:
    """One value to a cell: a list as the command line writes it, a config of peft's as its text."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, Mapping) else value
