import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memcalc.reporting.pictures import OPTIONS
from tests.cli.running import refusal, run
from tests.reporting.rows import file_of, measured
from tests.tiny import tiny

HOSTILE = "<script>alert(1)</script>'\"| $\\frac{a} =1 `x` \u202e"


def page(folder: Path, name: str = "report.html") -> str:
    return (folder / name).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Tags and the addresses that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "img", "source"}:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "srcset", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_a_text_a_page_a_table_and_pictures(tmp_path: Path) -> None:
    result = run("report", file_of(tmp_path, measured()), "--out", str(tmp_path))
    assert result.code == 0
    assert result.err == ""
    assert {Path(line).suffix for line in result.out.splitlines()} == {".md", ".html", ".csv", ".png"}
    assert "1 of 1 rows are compared" in page(tmp_path, "report.md")
    found = Tags(page(tmp_path))
    assert found.open == []
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in found.addresses)
    assert page(tmp_path).count("data:image/png") == 2 * page(tmp_path).count("<figure>") >= 10


def test_what_files_say_is_text_wherever_it_stands(tmp_path: Path) -> None:
    workload = {**measured()["workload"], "model": HOSTILE}
    result = run(
        "report", file_of(tmp_path, measured(workload=workload, versions={HOSTILE: HOSTILE})), "--out", str(tmp_path)
    )
    assert result.code == 0
    assert "script" not in Tags(page(tmp_path)).tags
    assert "<script" not in page(tmp_path, "report.md")
    assert "\u202e" not in page(tmp_path) + page(tmp_path, "report.md") + page(tmp_path, "report.csv")


def test_a_table_cell_is_no_formula(tmp_path: Path) -> None:
    workload = {**measured()["workload"], "model": "=HYPERLINK(1)"}
    run("report", file_of(tmp_path, measured(workload=workload)), "--out", str(tmp_path), "--no-pictures")
    rows = list(csv.DictReader(io.StringIO(page(tmp_path, "report.csv"))))
    assert {row["model"] for row in rows} == {"'=HYPERLINK(1)"}
    assert rows[0]["measured"] == rows[0]["estimate"] == str(measured()["peak_allocated"])


def test_rows_that_nothing_predicts_are_listed_with_the_reason(tmp_path: Path) -> None:
    workload = measured()["workload"]
    runs = file_of(
        tmp_path,
        measured(),
        measured(workload={**workload, "loss": "liger"}),
        measured(workload={"model": "../secret"}),
        measured(workload={"model": "llama-3.2-1b", "cls": 1}),
        measured(peak_allocated=None, outcome="out_of_memory", unavailable={"peak_allocated": "the card was full"}),
        '{"truncated',
    )
    result = run("report", runs, "--out", str(tmp_path), "--no-pictures")
    text = page(tmp_path, "report.md")
    assert "1 of 5 rows are compared" in text
    for reason in (
        "estimate does not write --loss liger yet",
        "is none of the catalog's",
        "unknown option 'cls'",
        "the card was full; estimate says",
        "not JSON",
    ):
        assert reason in text
    assert result.err == f"memcalc: not read: {runs}:6: not JSON: Invalid control character at\n"


def test_trace_stands_beside_estimate(tmp_path: Path) -> None:
    result = run("report", file_of(tmp_path, measured()), "--out", str(tmp_path), "--no-pictures", "--trace")
    assert result.code == 0
    (first, *_) = csv.DictReader(io.StringIO(page(tmp_path, "report.csv")))
    assert first["trace"] == first["estimate"] == first["measured"]
    assert "| peak allocated, trace | 1 |" in page(tmp_path, "report.md")


def test_check_says_when_a_report_is_out_of_date(tmp_path: Path) -> None:
    runs = file_of(tmp_path, measured())
    line = ("report", runs, "--out", str(tmp_path))
    assert run(*line, "--check").code == 1
    run(*line)
    assert run(*line, "--check").code == 0
    file_of(tmp_path, measured(peak_allocated=5))
    result = run(*line, "--check")
    assert result.code == 1
    assert "report.csv is out of date" in result.out


def test_measured_points_stand_on_the_curve_of_the_case_that_has_most(tmp_path: Path) -> None:
    from memcalc.planning.predicting import predict
    from memcalc.reporting.cases import Case
    from memcalc.reporting.pictures import most_measured, siblings
    from memcalc.reporting.reading import read

    lines = [measured(workload=tiny(batch=batch).to_json()) for batch in (1, 2, 4)]
    rows, _ = read([file_of(tmp_path, *lines, measured(workload=tiny("llama", "full").to_json()))])
    cases = [Case(row, *predict(row.footprint)) for row in rows]
    chosen = most_measured(cases)
    assert chosen is not None
    assert chosen.method == "lora"
    assert [value for value, _ in siblings(chosen, cases, "batch")] == [1, 2, 4]
    assert set(OPTIONS) == {"batch", "seq_len"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "PATHS are missing"),
        (("./nowhere.jsonl",), "cannot be read"),
        ((".", "--name", "../x"), "a file's name"),
        ((".", "--name", ".."), "a file's name"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: tuple[str, ...], reason: str) -> None:
    result = run("report", *arguments)
    assert result.code == 2
    assert reason in refusal(result)


def test_a_file_without_a_row_is_refused(tmp_path: Path) -> None:
    result = run("report", file_of(tmp_path, "{}"), "--out", str(tmp_path))
    assert result.code == 2
    assert "no row in there can be read" in result.err
