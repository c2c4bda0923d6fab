import dataclasses
from typing import Any

import pytest

from memcalc.allocator import cpu_replay
from memcalc.errors import NotModelled, RunFailed
from memcalc.importers import peft as importer
from memcalc.profiling import host
from memcalc.profiling.case import Case
from memcalc.tracing.record import record
from memcalc.workload import Workload
from tests.tracing.steps import tiny


def workload() -> Workload:
    return dataclasses.replace(tiny(dtype="fp32", attention="eager"), device="cpu")


def test_on_the_cpu_the_recorder_counts_real_tensors() -> None:
    footprint = host.measure(Case(workload(), top=3), record)
    played = cpu_replay(record(workload(), "cpu").timeline)
    assert (footprint.producer, footprint.outcome) == ("profile", "ok")
    assert footprint.peak_allocated == played.peak_allocated
    assert footprint.at_peak is not None
    assert sum(footprint.at_peak.values()) == footprint.peak_allocated
    assert len(footprint.largest) == 3
    nulls = {name for name in ("peak_reserved", "device_total") if getattr(footprint, name) is None}
    nulls |= {f"measured.{name}" for name, value in footprint.measured.items() if value is None}
    assert nulls == footprint.unavailable.keys()


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (MemoryError("no room"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (ValueError("a shape"), "crashed"),
    ],
)
def test_a_step_that_fails_is_an_outcome(cause: Exception, outcome: str) -> None:
    def fails(*args: Any) -> Any:
        raise RunFailed("the traced step failed") from cause

    footprint = host.measure(Case(workload()), fails)
    assert footprint.outcome == outcome
    assert str(cause) in footprint.unavailable["peak_allocated"]


@pytest.mark.parametrize("options", [{"dtype": "fp16"}, {"amp": "bf16"}, {"quant": "nf4"}, {"attention": "sdpa"}])
def test_what_is_not_written_for_the_cpu_is_refused(options: dict[str, Any]) -> None:
    refused = dataclasses.replace(tiny(**{"dtype": "fp32", **options}), device="cpu")
    with pytest.raises(NotModelled, match="--device cuda"):
        host.measure(Case(refused), record)


def test_auto_is_eager_attention_on_the_cpu() -> None:
    auto = dataclasses.replace(workload(), attention="auto")
    footprint = host.measure(Case(auto), record)
    assert (footprint.workload["attention"], footprint.workload["attention_kernel"]) == ("auto", "eager")
    assert footprint.peak_allocated == host.measure(Case(workload()), record).peak_allocated


@pytest.mark.parametrize("peft_type", ["SHIRA", "FROD"])
def test_what_trace_cannot_run_is_run_with_real_tensors(peft_type: str) -> None:
    config = {"peft_type": peft_type, "r": 2, "target_modules": ["q_proj"]}
    adapted = importer.workload(workload().model, config, dtype="fp32", device="cpu", seq_len=8, history="none")
    with pytest.raises(NotModelled, match="memcalc profile runs it with real tensors"):
        record(adapted)
    assert host.measure(Case(adapted), record).outcome == "ok"


@pytest.mark.parametrize("how", [{"snapshot": "x"}, {"pretrained": True}])
def test_what_needs_a_device_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(NotModelled, match="--device cpu"):
        host.measure(Case(workload(), **how), record)
