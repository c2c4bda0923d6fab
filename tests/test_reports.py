"""The committed report says what the measurements in profiles/ and today's estimate say. To make it anew:

memcalc report profiles --out reports --name measured
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


def test_its_page_stands_alone_and_its_pictures_are_small() -> None:
    page = (ROOT / "reports" / "measured.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for picture in (ROOT / "reports").glob("measured-*.png"):
        assert picture.stat().st_size < 100_000, picture.name
