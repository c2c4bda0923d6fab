"""Rows of dataclasses as a pandas DataFrame."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from memcalc.errors import MissingPackage

if TYPE_CHECKING:
    from pandas import DataFrame


def framed(cls: type, rows: Iterable[Any], refused: Mapping[str, str]) -> "DataFrame":
    """A row for each of `rows`, which are of `cls`, and for each refused method, with its reason.

    Whole numbers stay whole where some are missing (Int64). Raises MissingPackage without pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingPackage("pandas", "report") from None
    told = [asdict(row) for row in rows] + [{"method": name, "reason": reason} for name, reason in refused.items()]
    columns = {name: [row.get(name) for row in told] for name in (*(field.name for field in fields(cls)), "reason")}
    kinds = {name: {type(value) for value in values if value is not None} for name, values in columns.items()}
    whole = {name: pd.array(columns[name], "Int64") for name, kind in kinds.items() if kind == {int}}
    return pd.DataFrame({**columns, **whole})
