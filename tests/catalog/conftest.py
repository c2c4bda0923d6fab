import pytest

from memcalc.catalog import hub


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here asks the network."""

    def unreachable(repo_id: str) -> str:
        raise LookupError("the hub is out of reach")

    monkeypatch.setattr(hub, "config_file", unreachable)
