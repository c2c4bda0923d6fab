"""How a run ends that does not reach its end."""

from typing import NamedTuple

from memcalc.footprint import Footprint
from memcalc.workload import Workload

PEAKS = ("peak_allocated", "peak_live", "peak_reserved", "device_total", "peak_phase", "at_peak")
COUNTS = ("total_params", "trainable_params", "checkpoint_bytes")

_EXHAUSTED = ("out of memory", "can't allocate memory", "cannot allocate memory")  # Metal's and the host's words


class Failure(NamedTuple):
    """How a run ended that did not reach its end."""

    outcome: str  # out_of_memory, crashed, timeout
    reason: str  # one line
    phase: str | None = None  # the phase that ran

    @property
    def line(self) -> str:
        """All of it in one line."""
        place = f" in {self.phase}" if self.phase else ""
        return f"{self.outcome.replace('_', ' ')}{place}: {self.reason}"


def failure_of(error: BaseException, phase: str | None) -> Failure:
    """The failure that an exception stands for."""
    import torch

    reason = (str(error).strip().splitlines() or ["no message"])[0]
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if exhausted or (isinstance(error, RuntimeError) and any(words in reason.lower() for words in _EXHAUSTED)):
        return Failure("out_of_memory", reason, phase)
    return Failure("crashed", f"{type(error).__name__}: {reason}", phase)


def failed(workload: Workload, failure: Failure, seconds: float) -> Footprint:
    """The footprint of a run of which nothing but its end is known."""
    return Footprint(
        producer="profile",
        workload=workload.to_json(),
        unavailable=dict.fromkeys((*PEAKS, *COUNTS), f"the run did not reach its end, {failure.line}"),
        seconds=seconds,
        outcome=failure.outcome,
    )
