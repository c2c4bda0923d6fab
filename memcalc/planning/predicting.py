"""What estimate and trace say of a workload that somebody else has run."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from memcalc.errors import InvalidWorkload, MemcalcError, shown
from memcalc.estimating import record
from memcalc.footprint import Footprint
from memcalc.importers import peft
from memcalc.recording import Recording, footprint_of
from memcalc.workload import Workload

Record = Callable[[Workload], Recording]
Said = Footprint | str  # a string is the reason why nothing is said


class Predictions(NamedTuple):
    """What each tier says of one footprint's workload."""

    workload: Mapping[str, Any]  # resolved where it can be read, else as it was given
    estimate: Said
    trace: Said | None  # None: not asked


def predict(measured: Footprint, traced: Record | None = None) -> Predictions:
    """Both tiers' predictions for the workload of a footprint; `traced` records the real step, None leaves it out."""
    try:
        w = workload_of(measured)
    except MemcalcError as error:
        return Predictions(measured.workload, str(error), None if traced is None else str(error))
    trace = None if traced is None else _said(w, traced, "trace")
    return Predictions(w.to_json(), _said(w, record, "estimate"), trace)


def workload_of(measured: Footprint) -> Workload:
    """The workload of a footprint that came from a file; no other file and no hub is asked for its model.

    Raises MemcalcError where it cannot be.
    """
    given = measured.workload
    model = given.get("model")
    if "model_config" not in given and isinstance(model, str) and (set("/\\~") & set(model) or model.startswith(".")):
        raise InvalidWorkload(f"the model {shown(model)} is none of the catalog's, and its config is not in the file")
    return peft.from_json(given)


def _said(w: Workload, recorded: Record, tier: Any) -> Said:
    try:
        return footprint_of(w, recorded(w), tier)
    except MemcalcError as error:
        return str(error)
