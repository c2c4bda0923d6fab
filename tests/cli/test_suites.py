import json
from pathlib import Path

import pytest

from memcalc.cli import suites
from memcalc.footprint import Footprint
from memcalc.profiling import runner
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed
from tests.cli.running import Result, refusal, run

HEADER = 'title = "two"\npurpose = "p"\nminutes = 1\nmemory_gib = 1\n'


@pytest.fixture
def suite(tmp_path: Path, tiny: str) -> str:
    file = tmp_path / "two.toml"
    file.write_text(f'{HEADER}[[grid]]\nmodel = "{tiny}"\nbatch = [1, 2, 3]\n')
    return str(file)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 2 is too much; nothing is measured."""

    def answer(case: Case, *args: object, **how: object) -> Footprint:
        if case.workload.batch == 2:
            return failed(case.workload, Failure("out_of_memory", "2 GiB too many"), 1.0)
        return Footprint("profile", case.workload.to_json(), outcome="ok", measured={"steps": case.steps})

    monkeypatch.setattr(runner, "run", answer)


def go(suite: str, tmp_path: Path, *more: str) -> Result:
    return run("profile", "--suite", suite, "--out", str(tmp_path / "x.jsonl"), *more)


def outcomes(tmp_path: Path) -> list[str]:
    return [json.loads(line)["outcome"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("measured")
def test_a_suite_runs_to_its_end_and_says_in_one_line_how(suite: str, tmp_path: Path) -> None:
    result = go(suite, tmp_path)
    assert (result.code, result.err) == (4, "")
    said = f"two: 3 cases: 2 ok, 1 out of memory, 1 failed (--retry runs them again); {tmp_path / 'x.jsonl'}\n"
    assert result.out == said
    again = go(suite, tmp_path)
    assert again.out.startswith("two: 3 cases: 3 there already, 1 failed")
    assert go(suite, tmp_path, "--retry").out.startswith("two: 3 cases: 1 out of memory, 2 there already, 1 failed")
    assert outcomes(tmp_path) == ["ok", "out_of_memory", "ok", "out_of_memory"]


@pytest.mark.usefixtures("measured")
def test_shards_have_a_part_each(suite: str, tmp_path: Path) -> None:
    first = go(suite, tmp_path, "--shard", "1/2", "--steps", "0")
    assert (first.code, first.out.partition(";")[0]) == (0, "two: 2 cases: 2 ok")
    assert go(suite, tmp_path, "--shard", "2/2").code == 4
    assert len(outcomes(tmp_path)) == 3
    assert json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])["measured"]["steps"] == 0


@pytest.mark.usefixtures("measured")
def test_a_torn_line_is_mended_and_said(suite: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"schema": "memc')
    result = go(suite, tmp_path, "--shard", "1/3")
    assert "the last line was torn, 16 bytes" in result.err
    assert outcomes(tmp_path) == ["ok"]


def test_its_cases_can_be_listed(suite: str) -> None:
    result = run("profile", "--suite", suite, "--list")
    assert result.code == 0
    assert result.out.splitlines()[:2] == ["two: p", "3 cases, about 1 minutes in all, up to 1 GiB"]
    assert len(result.out.splitlines()) == 5


def test_ctrl_c_ends_it_cleanly(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **how: object) -> Footprint:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    result = go(suite, tmp_path)
    assert result.code == 130
    assert result.out.startswith("stopped; two: 3 cases: 3 not run")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--batch", "2"), "--batch cannot go with --suite"),
        (("--model", "7b"), "--model cannot go with --suite"),
        (("--json",), "--json cannot go with --suite"),
        (("--shard", "3/2"), "--shard '3/2'"),
        (("--shard", "x"), "--shard 'x'"),
        (("--out", "/no/such/folder/x"), "cannot be written"),
    ],
)
def test_what_cannot_go_with_a_suite_is_refused(more: tuple[str, ...], says: str, suite: str, tmp_path: Path) -> None:
    result = go(suite, tmp_path, *more)
    assert result.code == 2
    assert says in refusal(result)


def test_a_suite_needs_a_file_for_its_results_and_its_options_need_a_suite(suite: str, tiny: str) -> None:
    assert "--suite needs --out" in refusal(run("profile", "--suite", suite))
    assert "--retry goes with --suite only" in refusal(run("profile", "--model", tiny, "--retry"))
    assert suites._part(None) == (1, 1)
