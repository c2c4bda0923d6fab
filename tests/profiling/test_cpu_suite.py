"""What was measured on the CPU is what trace and estimate say of the same workloads, to the byte."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import memcalc
from memcalc.comparing import first_difference
from memcalc.footprint import Footprint
from memcalc.profiling.suite import read_suite
from memcalc.tracing.record import record
from memcalc.workload import Workload
from tests.cli.running import run
from tests.tracing.steps import steps_of

PROFILES = Path(__file__).parent.parent.parent / "profiles"
LINES = (PROFILES / "cpu" / "cpu.jsonl").read_text(encoding="utf-8").splitlines()
MEASURED = [Footprint.from_json(json.loads(line)) for line in LINES]
CASES = {footprint.measured["case"]: footprint for footprint in MEASURED}


def test_every_case_of_the_suite_was_measured() -> None:
    suite = read_suite(str(PROFILES / "suites" / "cpu.toml"))
    assert {case.name for case in suite.cases} == CASES.keys()
    assert {footprint.outcome for footprint in MEASURED} == {"ok"}


def test_the_suite_measures_the_same_again(tmp_path: Path) -> None:
    out = tmp_path / "again.jsonl"
    result = run("profile", "--suite", str(PROFILES / "suites" / "cpu.toml"), "--out", str(out), "--shard", "1/24")
    assert (result.code, result.err) == (0, "")
    again = [Footprint.from_json(json.loads(line)) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(again) == 4
    for footprint in again:
        before = CASES[footprint.measured["case"]]
        assert Workload.from_json(footprint.workload) == Workload.from_json(before.workload)
        assert (footprint.phases, footprint.at_peak) == (before.phases, before.at_peak)


@pytest.mark.parametrize("name", CASES)
def test_estimate_and_trace_say_what_was_measured(name: str) -> None:
    measured = CASES[name]
    workload = Workload.from_json(measured.workload)
    for predicted in (memcalc.estimate(workload), memcalc.trace(workload)):
        assert (predicted.total_params, predicted.trainable_params) == (
            measured.total_params,
            measured.trainable_params,
        )
        assert predicted.peak_allocated == measured.peak_allocated, predicted.producer
        assert predicted.phases == measured.phases


@pytest.mark.parametrize("name", [name for name in CASES if "dtype=bf16 method=full" in name and "=True" not in name])
def test_the_steps_streams_are_those_of_real_tensors(name: str) -> None:
    workload = Workload.from_json(CASES[name].workload)
    workload = replace(workload, attention="eager")
    real, meta = record(workload, "cpu").timeline, record(workload).timeline
    difference = first_difference(steps_of(meta), steps_of(real), ("trace", "cpu"))
    assert difference is None, difference
