import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from memcalc.errors import BadFile, NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling import runner
from memcalc.profiling.case import Case
from memcalc.profiling.store import Store
from tests.profiling import elsewhere
from tests.tracing.steps import tiny

CASE = Case(tiny(attention="eager"))


def test_a_case_runs_in_a_process_of_its_own() -> None:
    footprint = runner.run(CASE, elsewhere.answers)
    assert footprint.peak_reserved == 7
    assert footprint.measured["process"] != os.getpid()
    assert footprint.workload == CASE.workload.to_json()


def test_nothing_that_lies_in_the_working_directory_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('executed')")
    (tmp_path / "memcalc.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    assert runner.run(CASE, elsewhere.answers).outcome == "ok"


def test_the_allocators_settings_are_the_workloads_else_this_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    ambient = runner.run(CASE, elsewhere.answers)
    assert ambient.workload["alloc_conf"] == "expandable_segments:True"
    own = replace(CASE, workload=replace(CASE.workload, alloc_conf="max_split_size_mb:64"))
    settings = runner.run(own, elsewhere.answers).measured["settings"]
    assert settings == dict.fromkeys(("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"), "max_split_size_mb:64")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    assert runner.run(CASE, elsewhere.answers).measured["settings"] == {}


def test_a_refusal_over_there_is_the_same_refusal_here() -> None:
    with pytest.raises(NotModelled, match=r"^no such device: use trace$"):
        runner.run(CASE, elsewhere.refuses)


def test_a_crash_is_an_outcome_with_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    footprint = runner.run(CASE, elsewhere.raises)
    assert footprint.outcome == "crashed"
    assert footprint.unavailable["peak_allocated"].endswith("exit status 1: ZeroDivisionError: by zero")
    assert capfd.readouterr() == ("", "")


def test_a_kill_is_an_outcome() -> None:
    footprint = runner.run(CASE, elsewhere.is_killed)
    assert footprint.outcome == "crashed"
    assert "killed by SIGKILL: last words" in footprint.unavailable["peak_reserved"]


def test_a_timeout_is_an_outcome() -> None:
    began = time.monotonic()
    footprint = runner.run(CASE, elsewhere.hangs, timeout=1.5)
    assert footprint.outcome == "timeout"
    assert "after 1.5 seconds" in footprint.unavailable["peak_reserved"]
    assert time.monotonic() - began < 30


def test_files_that_cannot_be_written_are_refused_before_the_run(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "no" / "folder")
    with pytest.raises(BadFile, match="cannot be written"):
        runner.run(replace(CASE, snapshot=nowhere), elsewhere.hangs)
    with pytest.raises(BadFile, match="cannot be written"):
        Store(nowhere)


def test_a_store_only_grows(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    for peak in (1, 2):
        store = Store(str(file))
        store.append(Footprint("profile", {}, peak_allocated=peak))
        store.close()
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line.count('"peak_allocated": ') for line in lines] == [1, 1]
    assert '"peak_allocated": 2' in lines[1]
