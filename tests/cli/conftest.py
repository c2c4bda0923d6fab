import json
from pathlib import Path

import pytest

from tests.cli.running import TINY


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the config.json of a small model, as `--model` takes it."""
    folder: Path = tmp_path_factory.mktemp("tiny-llama")
    (folder / "config.json").write_text(json.dumps(TINY))
    return str(folder)
