"""The suite from end to end, its operators replaced by ones that run on the CPU, its device a fake."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from memcalc.profiling.kernels import checking, suite
from memcalc.profiling.kernels.case import Case
from tests.profiling.fakes import CONTEXT, Counting, FakeCuda, FakeNvml, fake_device

SCRIPT = Path(__file__).parents[3] / "profiles" / "suites" / "kernels.py"


def _cases() -> Iterator[Case]:
    def softmax(device: str) -> Any:
        x = torch.ones(64, 64, device=device)
        return lambda: (x.exp() + 0) * 1  # two blocks, of which one is alive beside the output

    yield Case("softmax_backward_scratch", {"nbytes": 64 * 64 * 4}, softmax)
    yield Case("flash_lse_shape", {"batch": 1, "heads": 2, "q_len": 3}, lambda _: lambda: [1, 2, 3], lambda _, r: r)
    yield Case("gemm_4bit_scratch", {}, lambda _: lambda: None, needs="no_such_package")

    def breaks(device: str) -> Any:
        raise RuntimeError("needs sm80\nand more")

    yield Case("cudnn attention", {}, breaks)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(suite, "FILES", {"all_kernels": (SimpleNamespace(cases=_cases),)})
    cuda = FakeCuda(name="NVIDIA H100 80GB HBM3")
    cuda.reset_peak_memory_stats()
    with Counting(cuda) as counting:
        found = list(suite.run(fake_device(cuda, FakeNvml(cuda, os.getpid()))))
        counting.closed = True
    return [json.loads(json.dumps(record)) for record in found]


def test_each_case_is_a_record_and_none_ends_the_suite(records: list[dict[str, Any]]) -> None:
    by_entry = {record["entry"]: record for record in records}
    assert by_entry["flash_lse_shape"]["measured"] == {"value": [1, 2, 3]}
    assert by_entry["gemm_4bit_scratch"]["refused"] == "the package no_such_package is not installed"
    assert by_entry["cudnn attention"]["refused"] == "RuntimeError: needs sm80"
    assert by_entry["cuda_context_when_empty"]["measured"] == {"value": CONTEXT}
    assert by_entry["cuda_context_with_all_kernels"]["measured"] == {"value": CONTEXT}
    assert by_entry["cublas_workspace"]["measured"] == {"value": 0}  # the CPU has none
    assert "segments_descend" in by_entry
    assert all(record["gpu"]["key"] == "h100" for record in records)


def test_the_records_can_be_checked(records: list[dict[str, Any]]) -> None:
    words = {verdict.entry: verdict.word for verdict in checking.verdicts(records)}
    assert words["softmax_backward_scratch"] == "confirmed"
    assert words["flash_lse_shape"] == "confirmed"
    assert words["cublas_workspace"] == "wrong"
    assert words["gemm_4bit_scratch"] == "unmeasured"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernels_suite", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["kernels.py", *arguments])
    code: int = script.main()
    return code


def test_the_script_checks_a_file(
    records: list[dict[str, Any]],
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "kernels.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    assert _run(script, monkeypatch, "--check", str(file)) == 1  # there is no cuBLAS on the CPU
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["confirmed", "softmax_backward_scratch"] for line in printed)
    assert {line.split()[1] for line in printed if line[0] != " "} >= set(checking.ENTRIES)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": "memcalc.footprint/1"}', '{"schema": "memcalc.kernels/1"}'])
def test_the_script_refuses_another_file_in_one_line(
    content: str,
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    assert _run(script, monkeypatch, "--check", str(file)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_the_script_needs_a_card(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert _run(script, monkeypatch, "--out", str(tmp_path / "new" / "kernels.jsonl")) == 3
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
