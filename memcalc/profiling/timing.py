"""How long a step takes, apart from the one whose memory is read."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from memcalc.profiling.device import Memory


def time_steps(step: Callable[[], None], memory: Memory, *, warmup: int, steps: int) -> list[float]:
    """Seconds of each of `steps` steps after `warmup` others; the device has finished when a clock is read."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(steps):
        memory.synchronize()
        began = time.perf_counter()
        step()
        memory.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds


def described(seconds: list[float], tokens: int) -> dict[str, Any]:
    """The median step and its tokens per second."""
    middle = median(seconds)
    return {"step_seconds": middle, "step_seconds_each": seconds, "tokens_per_second": tokens / middle}
