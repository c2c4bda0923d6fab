"""Other estimators, asked about the same workloads: each in an environment of its own, in a process of its own.

A peer is a file of this folder, named like its package with _ for -; it is run by the peer's Python, imports nothing of
memcalc, and defines `answer(workload) -> {"allocated": bytes, "device": bytes}`: what torch would have allocated, and
what the card must hold, as far as the peer speaks of them. What it refuses, it refuses with an exception.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memcalc.errors import BadFile

_SECONDS = 120.0  # for all rows; a peer answers in milliseconds
_LARGEST = 2**24  # bytes of all answers
_NO_PEERS = ("__init__.py", "driver.py")


class Answer(NamedTuple):
    """What a peer says of one workload, in bytes; or why it says nothing."""

    allocated: int | None
    device: int | None
    reason: str


def names() -> list[str]:
    """Every peer that has a file here, by its package's name."""
    files = (entry.name for entry in os.scandir(os.path.dirname(__file__)))
    return sorted(file[:-3].replace("_", "-") for file in files if file.endswith(".py") and file not in _NO_PEERS)


def ask(folder: str, workloads: Sequence[Mapping[str, Any]]) -> dict[str, list[Answer]]:
    """The answers of every peer with an environment in `folder`, folder/NAME/bin/python, a row to each workload.

    Raises BadFile where there is no environment at all.
    """
    pythons = {name: os.path.join(folder, name, "bin", "python") for name in names()}
    there = {name: python for name, python in pythons.items() if os.path.exists(python)}
    if not there:
        raise BadFile(folder, f"holds no environment of {', '.join(pythons)}: python -m venv {folder}/NAME, and pip")
    return {name: _ask(name, python, workloads) for name, python in there.items()}


def _ask(name: str, python: str, workloads: Sequence[Mapping[str, Any]]) -> list[Answer]:
    here = os.path.dirname(__file__)
    script = os.path.join(here, f"{name.replace('-', '_')}.py")
    command = [python, "-I", os.path.join(here, "driver.py"), script]
    environment = {"PATH": os.environ.get("PATH", ""), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    asked = json.dumps([dict(workload) for workload in workloads])
    try:
        done = subprocess.run(  # noqa: S603 - the environment is the user's own, the script ours
            command, input=asked, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Answer(None, None, str(error))] * len(workloads)
    try:
        answers = json.loads(done.stdout[:_LARGEST]) if done.returncode == 0 else None
    except ValueError:
        answers = None
    if not isinstance(answers, list) or len(answers) != len(workloads):
        line = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return [Answer(None, None, f"{name} failed: {line}")] * len(workloads)
    return [_answer(each) for each in answers]


def _answer(said: Any) -> Answer:
    if not isinstance(said, Mapping):
        return Answer(None, None, "no answer")
    return Answer(_size(said.get("allocated")), _size(said.get("device")), str(said.get("reason", "")))


def _size(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None
