"""The two tiers behind one face, so that tests and reports can hold them side by side."""

from collections.abc import Callable, Mapping
from typing import Final

from memcalc.recording import Recording
from memcalc.workload import Workload


def estimated(workload: Workload) -> Recording:
    """The tape's word."""
    from memcalc import estimating

    return estimating.record(workload)


def traced(workload: Workload) -> Recording:
    """The oracle's word: the real step on meta."""
    from memcalc.tracing.record import record

    recording = record(workload)
    return Recording(*(getattr(recording, name) for name in Recording._fields))


PRODUCERS: Final[Mapping[str, Callable[[Workload], Recording]]] = {"estimate": estimated, "trace": traced}
