"""A case on a device that has counters."""

import time
from dataclasses import replace
from importlib.util import find_spec

from memcalc.errors import MemcalcError, NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling import pinning, recorded
from memcalc.profiling.card import Card
from memcalc.profiling.case import Case
from memcalc.profiling.device import Device, open_device
from memcalc.profiling.facts import Facts
from memcalc.profiling.failing import Failure, failure_of
from memcalc.profiling.outcome import footprint_of_run
from memcalc.profiling.run import Run
from memcalc.profiling.sampler import Sampler


def measure(case: Case, device: Device | None = None) -> Footprint:
    """The footprint of a case, measured. Out of memory and errors of the libraries are outcomes, not exceptions.

    Raises MemcalcError where the case cannot begin: no such device, a model that cannot be built.
    """
    began = time.perf_counter()
    if case.workload.attention == "flash" and find_spec("flash_attn") is None:
        raise NotModelled(
            "--attention flash needs the package flash-attn, which is not installed here: --attention sdpa-flash is "
            "torch's own kernel, memcalc trace has a stand-in"
        )
    device = device or open_device(case.workload.device)
    facts = Facts()
    card = Card(device, facts, shared=case.shared)
    facts.read("recording", lambda: _record(device, case))
    workload = replace(case.workload, gpu=card.gpu() or case.workload.gpu)
    with pinning.attention(workload) as kernels:
        with Sampler(card.figures()) as sampler:
            run = Run(workload, case, device, sampler.look)
            failure = _attempt(run)
        sampler.report(facts)
        facts.read("outside_bytes", card.outside_allocator)
        found = recorded.read(run, facts)
        if failure is None and case.steps:
            _time(run, facts)
    return footprint_of_run(run, facts, kernels, found, failure, seconds=time.perf_counter() - began)


def _record(device: Device, case: Case) -> bool:
    """From the first block on: where Python stood is asked for only where somebody will read it."""
    device.memory.record(True, stacks=bool(case.top or case.snapshot))
    return True


def _attempt(run: Run) -> Failure | None:
    try:
        run.measured_step()
    except MemcalcError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's libraries raise is an outcome
        failure = failure_of(error, run.meter.open)
    else:
        return None
    run.meter.finish()
    return failure


def _time(run: Run, facts: Facts) -> None:
    """Timed steps come last: whatever goes wrong in them leaves the memory's figures as they are."""
    try:
        facts.values.update(run.time_steps())
    except Exception as error:  # noqa: BLE001 - as above
        facts.missing("step_seconds", failure_of(error, None).reason)
