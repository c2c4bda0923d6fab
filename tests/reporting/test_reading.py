import json
from pathlib import Path

import pytest

from memcalc.errors import BadFile
from memcalc.reporting import reading
from memcalc.reporting.reading import LONGEST_LINE, read
from tests.reporting.rows import file_of, measured

PUBLISHED = {
    "schema": "memcalc.published/1",
    "id": "a-row",
    "source": {"name": "somebody"},
    "workload": {"model": "llama-3.2-1b"},
    "measured": {
        "peak_allocated": 7,
        "after_load_allocated": 3,
        "end_allocated": 4,
        "phases": [{"name": "forward", "allocated_peak": 6}],
    },
}


def test_rows_keep_their_order_and_say_file_and_line(tmp_path: Path) -> None:
    path = file_of(tmp_path, measured(), "", PUBLISHED)
    rows, notes = read([path])
    assert [row.name for row in rows] == [f"{path}:1", "a-row"]
    assert [row.source for row in rows] == ["profile cuda", "somebody"]
    assert notes == []


def test_a_published_row_becomes_a_footprint_of_what_it_says(tmp_path: Path) -> None:
    ((row,), _) = read([file_of(tmp_path, PUBLISHED)])
    footprint = row.footprint
    assert (footprint.producer, footprint.peak_allocated, footprint.peak_reserved) == ("published", 7, None)
    assert {phase.name: phase[1:] for phase in footprint.phases} == {
        "forward": (None, 6, None),
        "load": (3, None, None),
        "optimizer": (4, None, None),
    }


def test_a_footprint_laid_out_over_lines_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(measured(), indent=2))
    rows, notes = read([str(tmp_path / "one.json")])
    assert len(rows) == 1
    assert notes == []


def test_a_folder_stands_for_its_files_of_lines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a").mkdir()
    path = file_of(tmp_path / "a", measured())
    rows, notes = read([str(tmp_path)])
    assert [row.name for row in rows] == [f"{path}:1"]
    assert notes == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"schema": "memcalc.footprint/1", "producer": "prof', "not JSON"),
        ('{"schema": "memcalc.footprint/2"}', "schema is 'memcalc.footprint/2': neither"),
        ("[1, 2]", "a JSON object, {...}, is needed"),
        ("null", "a JSON object, {...}, is needed"),
        ("{" * 3000, "not JSON"),
        (json.dumps(measured(seconds=float("nan"))), "NaN is not a JSON number"),
        (json.dumps(measured(peak_allocated=10**30)), "peak_allocated must be a whole number"),
        (json.dumps(measured(producer="<script>")), "producer must be one of"),
        (json.dumps({**PUBLISHED, "measured": [1]}), "must be objects"),
        (json.dumps({**PUBLISHED, "measured": {"phases": [{"name": "forward", "more": 1}]}}), "not a footprint"),
        (json.dumps({**PUBLISHED, "measured": {"phases": [{"name": []}]}}), "each with its name"),
        (json.dumps({**PUBLISHED, "workload": 3}), "workload must be an object"),
        ('{"a": 1, "a": 2}', "stands there twice"),
    ],
)
def test_a_line_that_is_no_row_is_told_by_file_and_line_and_the_others_are_read(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = file_of(tmp_path, measured(), line, measured())
    rows, (note,) = read([path])
    assert [row.name for row in rows] == [f"{path}:1", f"{path}:3"]
    assert note.place == f"{path}:2"
    assert reason in note.reason


def test_an_unknown_key_is_told_and_the_row_is_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, measured(wattage=300))
    rows, (note,) = read([path])
    assert len(rows) == 1
    assert note.reason == "unknown key 'wattage'"


def test_a_line_that_is_too_long_is_passed_over_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(measured())
    monkeypatch.setattr(reading, "LONGEST_LINE", len(line) + 1)
    path = file_of(tmp_path, line, "x" * (5 * len(line)), line)
    rows, (note,) = read([path])
    assert [row.name for row in rows] == [f"{path}:1", f"{path}:3"]
    assert "a line of more than" in note.reason
    assert len(line) < LONGEST_LINE


def test_the_same_reason_is_told_once_and_very_many_are_counted(tmp_path: Path) -> None:
    foreign = file_of(tmp_path, *(['{"schema": "other/1"}'] * 300))
    _, (note,) = read([foreign])
    assert note.times == 300
    _, notes = read([file_of(tmp_path, *(f'{{"schema": {n}}}' for n in range(200)), name="many.jsonl")])
    assert len(notes) == 51
    assert sum(note.times for note in notes) == 200


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path / "nowhere"), "/dev/null", str(tmp_path)):
        with pytest.raises(BadFile):
            read([path])


def test_names_from_files_are_printable_and_short(tmp_path: Path) -> None:
    ((row,), _) = read([file_of(tmp_path, {**PUBLISHED, "id": "\x1b[31m\ud800" + "x" * 500})])
    assert row.name.isprintable()
    assert len(row.name) == 100
