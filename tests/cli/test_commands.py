import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import memcalc
from memcalc import cli
from memcalc.cli import commands, estimate, main
from memcalc.errors import InvalidWorkload, NotModelled, RunFailed
from tests.cli.running import refusal, run

NAMES = commands.list_commands(click.Context(commands))


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.code == 0
    assert "Examples:\n  memcalc estimate" in result.out


def test_help_names_every_command_and_what_it_does() -> None:
    help_text = run("--help").out
    for name in NAMES:
        assert f"\n  {name.replace('_', '-')} " in help_text.replace("_", "-")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_that_begins_with_a_sentence_and_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.code == 0
    assert f"Usage: memcalc {name}" in result.out
    assert f"Examples:\n  memcalc {name}" in result.out


@pytest.mark.parametrize("arguments", [("--version",), ("estimate", "--version")])
def test_the_version_is_the_packages_own(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).out == f"memcalc {memcalc.__version__}\n"


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    assert "did you mean estimate?" in refusal(run("estimat"))


def test_an_option_before_the_command_is_answered_with_the_order() -> None:
    assert "a command comes first" in refusal(run("--model", "1.3b"))


@pytest.mark.parametrize(("error", "code"), [(InvalidWorkload, 2), (NotModelled, 3), (RunFailed, 4)])
def test_an_error_carries_its_exit_code(
    error: type[InvalidWorkload], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        raise error("one\ntwo \x1b[31m")

    monkeypatch.setattr(estimate.estimate, "callback", fails)
    result = run("estimate", "--model", "1.3b")
    assert result.code == code
    assert refusal(result) == r"one two \x1b[31m"


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(estimate.estimate, "callback", breaks)
    with pytest.raises(ZeroDivisionError):
        run("estimate", "--model", "1.3b")


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(estimate.estimate, "callback", interrupted)
    assert run("estimate", "--model", "1.3b").code == 130


def test_a_reader_that_has_left_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "memcalc", "estimate", "--help"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert process.returncode == 128 + signal.SIGPIPE
    assert process.stderr == b""


def test_a_full_disk_below_the_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "memcalc", "gpus", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr == "memcalc: error: standard output: cannot be written: No space left on device\n"


def test_an_output_that_the_caller_has_closed_is_none() -> None:
    closed = f"exec {shlex.quote(sys.executable)} -m memcalc gpus --json >&-"
    process = subprocess.run(["sh", "-c", closed], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


def test_what_asked_to_be_called_at_the_end_is_called() -> None:
    code = "import atexit, sys; sys.argv[1:] = ['--version']; atexit.register(print, 'the end')\n"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}from memcalc.__main__ import run; run()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout.splitlines()[1:] == ["the end"]


def test_a_pipe_that_cannot_show_the_bars_gets_lookalikes(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", pipe)
    assert main(["--version"]) == 0
    pipe.write("×…█▌→")
    pipe.seek(0)
    assert pipe.read().endswith("\u00d7...##->")


def test_a_new_command_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "say_hello.py").write_text(
        "import click\n\n@click.command\ndef say_hello():\n    click.echo('hello')\n"
    )
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(cli, "__path__", [str(tmp_path)])
    assert run("say-hello").out == "hello\n"
    monkeypatch.delitem(sys.modules, "memcalc.cli.say_hello")


def test_the_module_runs_as_the_console_script_does(tiny: str) -> None:
    command = [sys.executable, "-m", "memcalc", "estimate", "--model", tiny, "--json"]
    began = time.monotonic()
    process = subprocess.run(command, capture_output=True, check=True, text=True)
    footprint = json.loads(process.stdout)
    assert footprint["schema"] == "memcalc.footprint/1"
    assert 0 < footprint["seconds"] < time.monotonic() - began
