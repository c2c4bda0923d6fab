"""A case on a device that has counters: load, history, the measured step, then the steps that are timed."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from memcalc.errors import MemcalcError, NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling import card, pinning, record, timing, weights
from memcalc.profiling.case import Case
from memcalc.profiling.device import Device, open_device
from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.failing import classify
from memcalc.profiling.meter import Meter
from memcalc.profiling.sampler import Sampler
from memcalc.realize import describing, loops
from memcalc.realize.loading import build_base, load
from memcalc.realize.watch import Watch
from memcalc.workload import Workload


def measure(case: Case, device: Device | None = None) -> Footprint:
    """The footprint of a case, measured. Out of memory and errors of the libraries are outcomes, not exceptions.

    Raises MemcalcError where the case cannot begin: no such device, a model that cannot be built.
    """
    began = time.perf_counter()
    _check(case.workload)
    device = device or open_device(case.workload.device)
    facts = Facts()
    seen = card.begin(device, facts)
    workload = replace(case.workload, gpu=seen.gpu) if seen.gpu is not None else case.workload
    run = _Run(workload, case, device, facts)
    with Sampler(seen.figures(device)) as sampler, pinning.attention(workload) as kernels:
        run.watch(sampler.look)
        try:
            run.measured_step()
        except MemcalcError:
            raise
        except Exception as error:
            outcome, reason = classify(error)
        else:
            outcome, reason = "ok", ""
        seen.finish(device, facts)
    sampler.report(facts)
    if outcome == "ok":
        run.time_steps()
    return run.footprint(outcome, reason, kernels, seconds=time.perf_counter() - began)


def _check(workload: Workload) -> None:
    if workload.attention == "flash":
        from importlib.util import find_spec

        if find_spec("flash_attn") is None:
            raise NotModelled(
                "--attention flash needs the package flash-attn, which is not installed here: "
                "--attention sdpa-flash is torch's own, memcalc trace has a stand-in"
            )
