import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memcalc
from memcalc.footprint import Footprint
from memcalc.profiling import runner
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed
from tests.cli.running import refusal, run


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The cases that the command runs; nothing is measured."""
    seen: list[Case] = []

    def measured(case: Case, measure: Callable[[Case], Footprint], *, timeout: float | None) -> Footprint:
        seen.append(case)
        return Footprint(
            "profile",
            {**case.workload.to_json(), "gpu": "h100"},
            peak_allocated=1,
            peak_reserved=30 * 2**30,
            outcome="ok",
            measured={"timeout": timeout},
        )

    monkeypatch.setattr(runner, "run", measured)
    return seen


def test_the_case_is_what_the_options_say(cases: list[Case], tiny: str) -> None:
    options = ("--pretrained", "--warmup", "0", "--steps", "7", "--top", "4", "--snapshot", "s", "--timeout", "2.5")
    result = run("profile", "--model", tiny, "--batch", "3", *options, "--json")
    assert result.code == 0
    (case,) = cases
    assert (case.pretrained, case.warmup, case.steps, case.top, case.snapshot) == (True, 0, 7, 4, "s")
    assert case.workload.batch == 3
    assert json.loads(result.out)["measured"] == {"timeout": 2.5}


def test_the_verdict_is_about_the_card_that_was_named_else_about_the_one_there(cases: list[Case], tiny: str) -> None:
    assert run("profile", "--model", tiny, "--check").code == 0
    assert run("profile", "--model", tiny, "--check", "--gpu", "rtx4090").code == 1
    assert json.loads(run("profile", "--model", tiny, "--json").out)["workload"]["gpu"] == "h100"
    assert json.loads(run("profile", "--model", tiny, "--json", "--gpu", "t4").out)["workload"]["gpu"] == "t4"


def test_out_appends_a_line_whatever_the_outcome(
    cases: list[Case], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs.jsonl"
    assert run("profile", "--model", tiny, "--out", str(file)).code == 0
    _fail(monkeypatch)
    assert run("profile", "--model", tiny, "--out", str(file)).code == 4
    outcomes = [Footprint.from_json(json.loads(line)).outcome for line in file.read_text().splitlines()]
    assert outcomes == ["ok", "out_of_memory"]


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_failed_run_prints_its_footprint_and_exits_with_4(
    check: tuple[str, ...], tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(monkeypatch)
    result = run("profile", "--model", tiny, "--json", *check)
    assert result.code == 4
    assert json.loads(result.out)["outcome"] == "out_of_memory"
    assert result.err == "memcalc: error: the run did not reach its end, out of memory in backward: 2 GiB too many\n"
    assert "outcome: out of memory" in run("profile", "--model", tiny, *check).out


def _fail(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure("out_of_memory", "2 GiB too many", "backward")
    monkeypatch.setattr(runner, "run", lambda case, measure, **how: failed(case.workload, failure, 1.0))


@pytest.mark.parametrize(
    ("option", "value"), [("--steps", "-1"), ("--warmup", "x"), ("--timeout", "0"), ("--out", "/no/such/folder/x")]
)
def test_bad_values_are_refused_by_name(option: str, value: str, tiny: str) -> None:
    result = run("profile", "--model", tiny, option, value)
    assert result.code == 2
    assert option in refusal(result) or value in refusal(result)


def test_without_a_card_one_line_names_other_ways(tiny: str) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    result = run("profile", "--model", tiny, "--json")
    assert result.code == 3
    assert "no CUDA device" in refusal(result)
    assert "memcalc trace" in refusal(result)


def test_the_cpu_is_measured_in_a_process_of_its_own(tiny: str) -> None:
    result = run("profile", "--model", tiny, "--device", "cpu", "--dtype", "fp32", "--seq-len", "16", "--json")
    assert (result.code, result.err) == (0, "")
    footprint = Footprint.from_json(json.loads(result.out))
    assert footprint.outcome == "ok"
    assert footprint.at_peak is not None
    assert sum(footprint.at_peak.values()) == footprint.peak_allocated


def test_python_and_the_command_line_run_the_same_case(cases: list[Case], tiny: str) -> None:
    footprint = memcalc.profile(tiny, "lora", rank=4, steps=0)
    run("profile", "--model", tiny, "--rank", "4", "--steps", "0")
    assert dataclasses.replace(cases[0], snapshot=None) == cases[1]
    again: Any = memcalc.profile(cases[0].workload, steps=0)
    assert again == footprint
