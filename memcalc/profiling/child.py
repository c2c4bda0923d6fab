"""The other process: measures the case that its own parent, the runner, hands over.

What comes in is a pickle of (measure, case) on stdin, what goes out JSON in the file ANSWER: a footprint, or the
refusal of a case that cannot begin.
"""

import json
import os
import pickle
import sys

from memcalc.errors import DeviceBusy, MemcalcError


def main(answer: str) -> None:
    """Measure what stands on stdin."""
    answer_to(sys.stdin.buffer.read(), answer)


def answer_to(told: bytes, answer: str) -> None:
    """Measure, and leave the answer whole or not at all."""
    measure, case = pickle.loads(told)  # noqa: S301 - written by our own parent
    try:
        said = {"footprint": measure(case).to_json()}
    except MemcalcError as error:
        said = {"refused": str(error), "exit_code": error.exit_code, "busy": isinstance(error, DeviceBusy)}
    with open(f"{answer}.part", "w", encoding="utf-8") as file:
        json.dump(said, file)
    os.replace(f"{answer}.part", answer)
