"""Runs in a peer's environment: workloads as a JSON list in, a JSON list of its answers out."""

import json
import runpy
import sys
from typing import Any


def answers(script: str, workloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The script's answer to each workload; where it refuses, the reason."""
    answer = runpy.run_path(script)["answer"]
    found = []
    for workload in workloads:
        try:
            found.append(answer(workload))
        except Exception as error:  # noqa: BLE001 - however a peer refuses, it is its answer
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            found.append({"reason": said.partition("\n")[0][:200]})
    return found


if __name__ == "__main__":
    json.dump(answers(sys.argv[1], json.load(sys.stdin)), sys.stdout)
