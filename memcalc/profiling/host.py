"""A case on the CPU: real tensors under a recorder, since PyTorch's CPU allocator counts nothing."""

import contextlib
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from memcalc.errors import NotModelled, RunFailed
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case
from memcalc.profiling.failing import failed, failure_of
from memcalc.recording import footprint_of
from memcalc.workload import Workload

Record = Callable[[Workload, str], Any]  # (workload, device) -> a Recording of the run on that device

_UNSEEN = {
    "measured.step_seconds": "the recorder slows down every operator",
    "measured.process_used_peak": "the process holds Python and the libraries as well: no figure of the run alone",
}


def measure(case: Case, record: Record) -> Footprint:
    """The footprint of a case on the CPU, exact for every tensor that an operator makes.

    Raises MemcalcError where the case cannot begin.
    """
    began = time.perf_counter()
    _refuse(case)
    workload = case.workload
    if workload.attention == "auto":  # what auto means on the CPU
        workload = replace(workload, attention="eager")
    try:
        recording = record(workload, "cpu")
    except RunFailed as error:
        return failed(case.workload, failure_of(error.__cause__ or error, None), time.perf_counter() - began)
    seconds = time.perf_counter() - began
    footprint = footprint_of(case.workload, recording, "trace", top=case.top, seconds=seconds)
    return replace(
        footprint,
        producer="profile",
        outcome="ok",
        unavailable={**footprint.unavailable, **_UNSEEN},
        measured={**dict.fromkeys(name.removeprefix("measured.") for name in _UNSEEN), "name": processor()},
    )


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _refuse(case: Case) -> None:
    w = case.workload
    if w.amp != "none" or w.dtype == "fp16" or w.quant != "none" or w.attention not in {"auto", "eager"}:
        raise NotModelled(
            "--device cpu is for --dtype fp32 or bf16 with eager attention, without autocast or quantization: "
            "use --device cuda"
        )
    if case.snapshot is not None:
        raise NotModelled("--snapshot is of a device's allocator: --device cpu has none, memcalc trace writes one")
    if case.pretrained:
        raise NotModelled("--pretrained goes with a device that has an allocator of its own, not with --device cpu")
