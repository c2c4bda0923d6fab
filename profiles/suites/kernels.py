# ruff: noqa: INP001, T201 - a script beside its data, which prints its table
"""Measures on this machine's GPU what no tape can know, and holds memcalc's kernel table against it.

    python profiles/suites/kernels.py --out profiles/a100/kernels.jsonl
    python profiles/suites/kernels.py --check profiles/a100/kernels.jsonl

The first takes a minute or two on any CUDA GPU and appends a JSON line for each case; it ends with what the second
prints, which needs no GPU: every entry of memcalc/kernels as confirmed, wrong (and by how much) or unmeasured.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memcalc.errors import MemcalcError
from memcalc.profiling.device import open_device
from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.kernels import checking, suite


def main() -> int:
    """Exit codes: 0, 1 an entry is wrong, 2 bad input, 3 no GPU that can be looked at."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FILE", help="measure, and append to this file")
    what.add_argument("--check", type=Path, metavar="FILE", help="only check the table against this file")
    chosen = parser.parse_args()
    try:
        records = _read(chosen.check) if chosen.check else _measure(chosen.out)
    except (OSError, ValueError) as error:
        return _refuse(str(error), 2)
    except Unmeasurable as error:
        return _refuse(str(error), 3)
    except MemcalcError as error:
        return _refuse(str(error), error.exit_code)
    return _print(records)


def _measure(out: Path) -> list[dict[str, Any]]:
    records = []
    device = open_device("cuda")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for record in suite.run(device):
            file.write(json.dumps(record) + "\n")
            file.flush()
            records.append(record)
    return records


def _read(file: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if not all(isinstance(record, dict) and record.get("schema") == suite.SCHEMA for record in records):
        raise ValueError(f"{file}: not all lines are of the schema {suite.SCHEMA}")
    if not all(
        {"entry", "arguments", "gpu"} <= record.keys() and {"measured", "refused"} & record.keys() for record in records
    ):
        raise ValueError(f"{file}: a line lacks its entry, its arguments, its gpu or what was measured")
    return records


def _print(records: Iterable[dict[str, Any]]) -> int:
    verdicts = checking.verdicts(records)
    for verdict in verdicts:
        print("\n".join(verdict.lines()))
    return int(any(verdict.word == "wrong" for verdict in verdicts))


def _refuse(message: str, code: int) -> int:
    print(f"kernels: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
