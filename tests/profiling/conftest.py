from collections.abc import Iterator
from pathlib import Path

import pytest

from memcalc.profiling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of nothing yet."""
    opened = Store(str(tmp_path / "runs.jsonl"))
    yield opened
    opened.close()
