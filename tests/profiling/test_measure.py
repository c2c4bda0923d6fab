"""A whole run on a fake device: what is read there is what the recorder says of the same step."""

import dataclasses
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memcalc.allocator import Replay, replay
from memcalc.errors import DeviceBusy, NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case
from memcalc.profiling.device import Device
from memcalc.profiling.failing import PEAKS
from memcalc.profiling.measure import measure
from memcalc.profiling.memory import Metal
from memcalc.profiling.nvml import Nvml
from memcalc.tracing.record import record
from memcalc.units import GIB, MIB
from memcalc.workload import Workload
from tests.profiling.fakes import CONTEXT, Counting, FakeCuda, FakeNvml, fake_device
from tests.tracing.steps import tiny

LOOPS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"method": "full"},
    "accumulated, gradients kept": {"grad_accum": 2, "zero_grad": "zero"},
    "a longer history": {"history": "16,empty,same"},
    "plain": {"loop": "plain"},
    "inference": {"mode": "inference"},
}


def workload(**options: Any) -> Workload:
    return tiny(**{"dtype": "fp32", "attention": "eager", **options})


def profiled(case: Case, cuda: FakeCuda | None = None, nvml: FakeNvml | None = None) -> Footprint:
    """A case on the fake device, whose tensors are real and lie on the CPU."""
    cuda = cuda or FakeCuda()
    counting = Counting(cuda)
    with counting:
        footprint = measure(case, fake_device(cuda, nvml or FakeNvml(cuda, os.getpid())))
        counting.closed = True
    assert footprint == Footprint.from_json(footprint.to_json())
    return footprint


def recorded(workload: Workload) -> tuple[Replay, dict[str, int]]:
    timeline = record(dataclasses.replace(workload, device="cpu"), "cpu").timeline
    played = replay(timeline)
    assert played.peak_at is not None
    return played, timeline.bytes_by_category(timeline.alive_at(played.peak_at + 1), played.sizes)


@pytest.mark.parametrize("options", LOOPS.values(), ids=LOOPS)
def test_levels_are_those_of_the_recorded_step(options: dict[str, Any]) -> None:
    footprint = profiled(Case(workload(**options), steps=0))
    expected, categories = recorded(workload(**options))
    assert footprint.outcome == "ok"
    phases = {p.name: (p.allocated_end, p.allocated_peak, p.reserved_peak) for p in footprint.phases}
    assert phases == {name: tuple(levels) for name, levels in expected.phases.items() if name != "history"}
    assert footprint.peak_allocated == expected.peak_allocated
    assert footprint.peak_reserved == expected.peak_reserved
    assert footprint.peak_live == expected.peak_live
    assert footprint.peak_phase == expected.peak_phase
    told = dict(footprint.measured["at_peak_known"])
    assert told.pop("unknown") == sum(categories[name] for name in ("activations", "logits_loss", "workspace"))
    assert told == {name: categories[name] for name in told}


def test_every_null_has_a_reason() -> None:
    footprint = profiled(Case(workload(), steps=0), nvml=None)
    data = footprint.to_json()
    nulls = [name for name, value in data.items() if value is None]
    nulls += [f"measured.{name}" for name, value in data["measured"].items() if value is None]
    assert nulls == ["at_peak"]
    assert set(nulls) <= footprint.unavailable.keys()


def test_without_nvml_the_device_level_is_null_with_the_reason() -> None:
    cuda = FakeCuda()
    with Counting(cuda) as counting:
        footprint = measure(Case(workload(), steps=0), fake_device(cuda))
        counting.closed = True
    assert footprint.peak_reserved is not None
    assert footprint.device_total is None
    assert footprint.unavailable["device_total"] == "no NVML here"
    assert footprint.unavailable["measured.process_used_peak"] == "no NVML here"


def test_a_backend_that_counts_no_peaks_says_so_for_each() -> None:
    cuda = FakeCuda()

    def allocated() -> int:
        return cuda.memory_stats()["allocated_bytes.all.current"]

    backend = SimpleNamespace(
        current_allocated_memory=allocated, driver_allocated_memory=allocated, synchronize=lambda: None,
        empty_cache=lambda: None, recommended_max_memory=lambda: 16 * 2**30,
    )  # fmt: skip
    cuda.reset_peak_memory_stats()
    with Counting(cuda) as counting:
        footprint = measure(Case(workload(), steps=1), Device("mps", "cpu", Metal(backend), Nvml(None, "no NVML here")))
        counting.closed = True
    assert footprint.outcome == "ok"
    assert [phase.name for phase in footprint.phases] == ["load", "forward", "backward", "optimizer"]
    assert all(phase.allocated_end and phase.allocated_peak is None for phase in footprint.phases)
    data = footprint.to_json()
    nulls = {name for name, value in data.items() if value is None}
    assert nulls == set(PEAKS)
    nulls |= {f"measured.{name}" for name, value in data["measured"].items() if value is None}
    assert nulls <= footprint.unavailable.keys()
    assert footprint.measured["tokens_per_second"] > 0


def test_the_device_level_is_reserved_memory_and_what_lies_beside_it() -> None:
    footprint = profiled(Case(workload(), steps=0))
    assert footprint.measured["context_bytes"] == CONTEXT
    assert footprint.peak_reserved is not None
    assert footprint.device_total == footprint.peak_reserved + CONTEXT
    assert footprint.measured["process_used_peak"] == footprint.device_total


def test_timed_steps_leave_the_memory_as_it_was() -> None:
    without, timed = profiled(Case(workload(), steps=0)), profiled(Case(workload(), warmup=1, steps=2))
    assert timed.phases == without.phases
    assert "step_seconds" not in without.measured
    assert len(timed.measured["step_seconds_each"]) == 2
    assert timed.measured["tokens_per_second"] == pytest.approx(2 * 32 / timed.measured["step_seconds"])


def test_out_of_memory_is_an_outcome_that_keeps_the_phases_before_it() -> None:
    cuda = FakeCuda()
    cuda.largest = 200_000  # the weights fit, the logits do not
    footprint = profiled(Case(workload(dtype="bf16"), steps=0), cuda)
    assert footprint.outcome == "out_of_memory"
    assert [phase.name for phase in footprint.phases] == ["load"]
    assert footprint.peak_allocated is None
    assert footprint.peak_reserved is None
    assert footprint.measured["reached_allocated"] > 0
    reason = footprint.unavailable["peak_allocated"]
    assert "out of memory in history" in reason
    assert "\n" not in reason


def test_a_crash_in_the_library_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    footprint = profiled(Case(workload(history="none"), steps=0))
    assert footprint.outcome == "crashed"
    assert [phase.name for phase in footprint.phases] == ["load", "forward", "backward"]
    assert footprint.unavailable["at_peak"].endswith("crashed in optimizer: ZeroDivisionError: by zero")


def test_the_workload_names_the_card_that_was_there() -> None:
    known = profiled(Case(workload(), steps=0), FakeCuda(name="NVIDIA H100 80GB HBM3"))
    assert known.workload["gpu"] == "h100"
    unknown = profiled(Case(workload(), steps=0))
    assert Workload.from_json(unknown.workload).gpu.memory_bytes == unknown.measured["device_memory"]


def test_the_snapshot_is_what_torch_would_have_written(tmp_path: Path) -> None:
    file = tmp_path / "peak.pickle"
    footprint = profiled(Case(workload(), steps=0, snapshot=str(file)))
    snapshot = pickle.loads(file.read_bytes())
    births = [entry for entry in snapshot["device_traces"][0] if entry["action"] == "alloc"]
    assert len(births) > 100
    assert footprint.measured["allocator_settings"] == snapshot["allocator_settings"]


def test_the_largest_blocks_come_largest_first() -> None:
    footprint = profiled(Case(workload(), steps=0, top=5))
    sizes = [block.nbytes for block in footprint.largest]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert {block.category for block in footprint.largest} == {"unknown", "weights"}


def test_the_flash_library_is_asked_for_before_anything_runs() -> None:
    with pytest.raises(NotModelled, match="flash-attn"):
        measure(Case(workload(dtype="bf16", attention="flash")), fake_device(FakeCuda()))


@pytest.mark.gpu
def test_a_real_card_reaches_the_peak_that_trace_says() -> None:
    case = Case(tiny(attention="auto"), steps=1)
    footprint = measure(case)
    assert footprint.outcome == "ok"
    expected = replay(record(dataclasses.replace(case.workload, gpu=_card(footprint))).timeline)
    assert footprint.peak_allocated == expected.peak_allocated


def _card(footprint: Footprint) -> Any:
    return Workload.from_json(footprint.workload).gpu


@pytest.mark.parametrize("used", [300 * MIB, 20 * GIB])
def test_a_card_that_others_use_is_refused_unless_it_is_shared(used: int) -> None:
    alone = Case(tiny(), shared=False)
    cuda = FakeCuda()
    with pytest.raises(DeviceBusy, match="--shared"):
        measure(alone, fake_device(cuda, FakeNvml(cuda, os.getpid(), others=((1, used),))))
    cuda = FakeCuda()
    with Counting(cuda) as counting:
        shared = dataclasses.replace(alone, shared=True)
        footprint = measure(shared, fake_device(cuda, FakeNvml(cuda, os.getpid(), others=((1, used),))))
        counting.closed = True
    assert footprint.measured["others_used_before"] == used
    assert "1 other processes computed on this card" in footprint.warnings


def test_a_card_with_hidden_processes_is_refused_by_what_is_taken() -> None:
    cuda = FakeCuda()
    nvml = FakeNvml(cuda, os.getpid(), others=((1, 20 * GIB),))
    nvml.refused.add("nvmlDeviceGetComputeRunningProcesses")
    with pytest.raises(DeviceBusy, match="20"):
        measure(Case(tiny(), shared=False), fake_device(cuda, nvml))


def test_an_idle_card_is_nobodys() -> None:
    cuda = FakeCuda()
    with Counting(cuda) as counting:
        footprint = measure(Case(tiny(), shared=False), fake_device(cuda, FakeNvml(cuda, os.getpid())))
        counting.closed = True
    assert footprint.measured["others_used_before"] == 0
