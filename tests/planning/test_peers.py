"""Other estimators: none is installed here, so that their environments are stand-ins of a few lines of shell."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from memcalc.errors import BadFile
from memcalc.planning import peers
from memcalc.planning.peers import driver
from memcalc.reporting.document import Table
from memcalc.reporting.peers import section
from tests.reporting.rows import case

FOLDER = Path(peers.__file__).parent


def environment(folder: Path, name: str, shell: str) -> None:
    """A Python of a peer that does what `shell` says."""
    python = folder / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{shell}\n")
    python.chmod(0o755)


def test_a_peer_is_a_file_and_imports_nothing_of_ours() -> None:
    assert peers.names() == ["accelerate", "fitcheck-llm", "ftuneai", "vramcalc"]
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if path.name != "__init__.py":
            assert not any((module or "").startswith("memcalc") for module in imported)


def test_the_driver_runs_a_script_and_takes_its_refusals_as_answers(tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text(
        "def answer(w):\n"
        "    if w['n'] > 1:\n"
        "        raise ValueError('too\\nmany')\n"
        "    return {'device': 1 // w['n']}\n"
    )
    assert driver.answers(str(script), [{"n": 1}, {"n": 2}, {"n": 0}]) == [
        {"device": 1},
        {"reason": "too"},
        {"reason": "ZeroDivisionError: integer division or modulo by zero"},
    ]


def test_peers_are_asked_by_their_own_python(tmp_path: Path) -> None:
    environment(tmp_path, "vramcalc", 'cat >/dev/null; echo \'[{"allocated": 5, "device": "much"}, 3]\'')
    environment(tmp_path, "ftuneai", "cat >/dev/null; echo no such module >&2; exit 1")
    environment(tmp_path, "accelerate", "cat >/dev/null; echo '[{}'")
    found = peers.ask(str(tmp_path), [{}, {}])
    assert found["vramcalc"] == [(5, None, ""), (None, None, "no answer")]
    assert found["ftuneai"] == [(None, None, "ftuneai failed: no such module")] * 2
    assert found["accelerate"] == [(None, None, "accelerate failed: it says nothing")] * 2
    assert "fitcheck-llm" not in found


def test_a_script_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_SECONDS", 0.2)
    environment(tmp_path, "vramcalc", "exec sleep 20")
    ((answer,),) = peers.ask(str(tmp_path), [{}]).values()
    assert "timed out" in answer.reason


def test_a_missing_package_is_the_reason(tmp_path: Path) -> None:
    environment(tmp_path, "vramcalc", f'exec {sys.executable} "$@"')
    ((answer,),) = peers.ask(str(tmp_path), [{}]).values()
    assert "No module named 'vramcalc'" in answer.reason


def test_a_folder_without_environments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="holds no environment of accelerate"):
        peers.ask(str(tmp_path), [])


def test_the_nearer_one_is_told_whoever_it_is() -> None:
    peak = case().row.footprint.peak_allocated or 0
    cases: list[Any] = [case("a", peak_allocated=peak), case("b", peak_allocated=peak * 2)]
    answers = {"other": [peers.Answer(peak + 1, None, ""), peers.Answer(peak * 2, None, "")]}
    summary, rows, _ = (part for part in section(cases, answers).parts if isinstance(part, Table))
    assert [(line[1], line[2], line[3]) for line in summary.rows] == [
        ("other", "2", "1"),
        ("memcalc, same rows", "2", "1"),
    ]
    assert rows.rows[1][3:] == ("-50.000 %", "+0.000 %")
