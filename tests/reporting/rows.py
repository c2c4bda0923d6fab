"""Rows of reports for tests: footprints as files hold them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memcalc import estimating
from memcalc.reporting.cases import Case
from memcalc.reporting.reading import Row
from tests.tiny import tiny


def measured(**changes: Any) -> dict[str, Any]:
    """A profile of a tiny model, as JSON holds it: what estimate says of it, but for `changes`."""
    return {**estimating.estimate(tiny()).to_json(), "producer": "profile", **changes}


def file_of(folder: Path, *lines: Mapping[str, Any] | str, name: str = "runs.jsonl") -> str:
    """A file of these lines."""
    path = folder / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def case(name: str = "a", source: str = "profile", **changes: Any) -> Case:
    """A case whose prediction is right but for what `changes` of the measurement say."""
    from memcalc.footprint import Footprint

    said = estimating.estimate(tiny())
    return Case(Row(name, source, Footprint.from_json(measured(**changes))), said.workload, said)
