"""One workload along its micro-batch and its sequence length, an estimate at each point, until its card is full."""

from collections.abc import Iterator
from dataclasses import replace

from memcalc.errors import MemcalcError
from memcalc.estimating import estimate
from memcalc.footprint import Footprint
from memcalc.workload import Workload

VALUES = {"batch": (1, 2, 4, 8, 16, 32, 64, 128), "seq_len": (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)}
_BEYOND = 1.5  # of the card's memory: further points tell nothing


def along(w: Workload, option: str) -> Iterator[tuple[int, Footprint]]:
    """Values of `option` with their footprints, upwards: those of VALUES and the workload's own.

    Ends at the first that lies far beyond the card's memory, or cannot be.
    """
    for value in sorted({*VALUES[option], getattr(w, option)}):
        try:
            footprint = estimate(replace(w, **{option: value}))
        except MemcalcError:
            return
        yield value, footprint
        if footprint.held > _BEYOND * w.gpu.memory_bytes:
            return
