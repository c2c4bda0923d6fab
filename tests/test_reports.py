"""The committed reports say what the measurements in profiles/ and today's estimate say. To make them anew:

memcalc report profiles --out reports --name measured
memcalc report profiles/published --out reports --name peers --peers .peers --no-pictures
"""

import shlex
from pathlib import Path

import pytest

from tests.cli.running import run

ROOT = Path(__file__).parent.parent
LINE = "report profiles --out reports --name measured"


def test_the_report_of_what_was_measured_is_not_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run(*shlex.split(LINE), "--check")
    assert result.code == 0, f"{result.out}to be made anew: memcalc {LINE}"


def test_what_stands_beside_other_estimators_is_todays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their own answers need their environments, and change with their versions only."""
    monkeypatch.chdir(ROOT)
    assert run("report", "profiles/published", "--out", str(tmp_path), "--name", "peers", "--no-pictures").code == 0
    assert (tmp_path / "peers.csv").read_text() == (ROOT / "reports" / "peers.csv").read_text()


def test_its_page_stands_alone_and_its_pictures_are_small() -> None:
    page = (ROOT / "reports" / "measured.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for picture in (ROOT / "reports").glob("measured-*.png"):
        assert picture.stat().st_size < 100_000, picture.name
