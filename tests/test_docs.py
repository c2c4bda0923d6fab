"""README says nothing untrue: its output is what its commands print, its lines are what .ci/run runs."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import memcalc
from memcalc.cli import EXAMPLES, commands, main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OUTPUT = re.compile(r"(?P<head><!-- output: (?P<command>memcalc .*?) -->\n+```text\n).*?(?=```)", re.DOTALL)
REPORT = re.compile(r"(?P<head><!-- report: (?P<name>\w+) -->\n)\n(?:(?:\|.*\n)+\n)?")
CI_LINE = re.compile(r"<!-- ci: (\w+) -->\n```sh\n(.*)\n```\n")


def printed(command: str) -> str:
    """What a command prints into a pipe of 80 columns."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    arguments = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_output_in_readme_is_what_the_commands_print(request: pytest.FixtureRequest) -> None:
    before = README.read_text(encoding="utf-8")
    assert OUTPUT.search(before), "README shows no output"
    after = OUTPUT.sub(lambda block: block["head"] + printed(block["command"]), before)
    if request.config.getoption("--update-golden"):
        README.write_text(after, encoding="utf-8")
    assert after == README.read_text(encoding="utf-8"), "accept with pytest --update-golden"


def test_the_table_in_readme_is_the_reports(request: pytest.FixtureRequest) -> None:
    before = README.read_text(encoding="utf-8")
    assert REPORT.search(before), "README shows no table of a report"

    def anew(block: re.Match[str]) -> str:
        page = (ROOT / "reports" / f"{block['name']}.md").read_text(encoding="utf-8")
        table = re.search(r"(?:^\|.*\n)+", page, re.MULTILINE)
        assert table is not None
        return f"{block['head']}\n{table[0]}\n"

    after = REPORT.sub(anew, before)
    if request.config.getoption("--update-golden"):
        README.write_text(after, encoding="utf-8")
    assert after == README.read_text(encoding="utf-8"), "accept with pytest --update-golden"


def test_the_python_sessions_of_readme_are_true() -> None:
    sessions = re.findall(r"```pycon\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert sessions
    for session in sessions:
        test = doctest.DocTestParser().get_doctest(session, {}, "README", "README.md", 0)
        assert doctest.DocTestRunner().run(test).failed == 0


def test_readme_has_the_two_lines_that_ci_runs() -> None:
    lines = dict(CI_LINE.findall(README.read_text(encoding="utf-8")))
    assert sorted(lines) == ["test", "use"]
    assert "memcalc estimate" in lines["use"]
    assert "pytest" in lines["test"]


def test_every_command_of_readme_and_changelog_exists() -> None:
    known = commands.list_commands(click.Context(commands))
    for name in ("README.md", "CHANGELOG.md"):
        for command in re.findall(r"`?memcalc ([a-z][a-z-]+)\b", (ROOT / name).read_text(encoding="utf-8")):
            assert command.replace("-", "_") in known, f"{name} names memcalc {command}"


def test_the_examples_of_the_help_run(capsys: pytest.CaptureFixture[str]) -> None:
    examples = EXAMPLES.splitlines()
    for name in commands.list_commands(click.Context(commands)):
        command = commands.get_command(click.Context(commands), name)
        examples += getattr(command, "examples", ())
    for example in examples:
        arguments = shlex.split(example, comments=True)[1:]
        if not any(argument.startswith("./") for argument in arguments):
            assert main(arguments) in (0, 1), capsys.readouterr().err


def test_the_python_example_of_the_package_is_true() -> None:
    example = re.findall(r">>> (footprint = .*|footprint\.fits.*)", memcalc.__doc__ or "")
    names: dict[str, object] = {"memcalc": memcalc}
    exec(example[0], names)
    said = re.search(r">>> footprint\.fits.*\n(.*)", memcalc.__doc__ or "")
    assert said is not None
    assert repr(eval(example[1], names)) == said[1]


def test_every_pinned_version_lies_in_the_range_that_pyproject_gives() -> None:
    import tomllib

    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name != "memcalc":
            assert requirement.specifier.contains(pins[requirement.name]), requirement
