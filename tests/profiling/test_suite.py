import tomllib
from pathlib import Path

import pytest

from memcalc import methods
from memcalc.errors import BadFile
from memcalc.profiling.suite import read_suite

FOLDER = Path(__file__).parent.parent.parent / "profiles" / "suites"
SUITES = sorted(FOLDER.glob("*.toml"))
HEADER = 'title = "t"\npurpose = "p"\nminutes = 1\nmemory_gib = 1\n'
CASE = '[[case]]\nmodel = "7b"\n'


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_that_is_shipped_can_be_read(path: Path) -> None:
    suite = read_suite(str(path))
    assert suite.title == path.stem
    assert suite.cases
    assert not [case.name for case in suite.cases if str(FOLDER) in str(case.workload.to_json())]


def test_every_method_is_a_line_of_the_suite_of_methods() -> None:
    grids = tomllib.loads((FOLDER / "methods.toml").read_text(encoding="utf-8"))["grid"]
    lines = [line for grid in grids for line in (grid, *grid.get("variants", ()))]
    assert {line["method"] for line in lines if "method" in line} == set(methods.names())


def test_a_case_has_its_own_options_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"{HEADER}[defaults]\nseq-len = 64\nbatch_size = 4\n{CASE}seq-len = 128\nto-the-limit = true\n")
    (case,) = read_suite(str(file)).cases
    assert (case.workload.seq_len, case.workload.batch, case.to_the_limit) == (128, 4, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe\x00binary", "not UTF-8"),
        (b"\x00\x01", "not TOML"),
        (b"{}", "not TOML"),
        (b"[" * 100_000, "(nested too deep|not TOML)"),
        (b"x = " + b"[" * 100_000, "(nested too deep|not TOML)"),
        (b"#" * (2**20 + 1), "too large"),
        (b"", "title must be a text"),
        (HEADER.encode(), "holds no cases"),
        (f"{HEADER}colour = 1\n{CASE}".encode(), "the key 'colour'"),
        (f"{HEADER}{CASE}".replace("minutes = 1", "minutes = nan").encode(), "minutes must be a number"),
        (f"{HEADER}{CASE}".replace("minutes = 1", "minutes = true").encode(), "minutes must be a number"),
        (f"{HEADER}timeout = 'x'\n{CASE}".encode(), "timeout must be a number"),
        (f"{HEADER}defaults = 3\n{CASE}".encode(), r"\[defaults\] must be a table"),
        (f"{HEADER}case = 3".encode(), r"write \[\[case\]\]"),
        (f"{HEADER}grid = ['x']".encode(), r"\[\[grid\]\] 1 must be a table"),
        (f"{HEADER}[grid]\nmodel = '7b'".encode(), r"write \[\[grid\]\]"),
        (f"{HEADER}[[case]]\nbatch = 1".encode(), "model is missing"),
        (f"{HEADER}[[case]]\nmodel = ['7b']".encode(), "model is missing, or no text"),
        (f"{HEADER}{CASE}batch = 'two'".encode(), r"\[\[case\]\] 1 \(model=7b batch=two\): --batch"),
        (f"{HEADER}{CASE}batch = 1979-05-27".encode(), "--batch must be a whole number"),
        (f"{HEADER}{CASE}{CASE}batch = 1".encode(), r"\[\[case\]\] 2 .*: the same workload as model=7b"),
        (f"{HEADER}{CASE}bach = 2".encode(), "unknown option 'bach'; did you mean batch"),
        (f"{HEADER}{CASE}method = 'nope'".encode(), r"\[\[case\]\] 1 .*nope"),
        (f"{HEADER}{CASE}seq-len = 1\nseq_len = 2".encode(), "gives an option twice"),
        (f"{HEADER}[[grid]]\nmodel = '7b'\nbatch = {list(range(1, 3000))}".encode(), "at most 2,000"),
    ],
)
def test_a_file_that_is_no_suite_is_refused_with_its_place(text: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(text)
    with pytest.raises(BadFile, match=says) as refused:
        read_suite(str(file))
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["/dev/null", "/no/such/file", "/", "x\0y"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(BadFile):
        read_suite(path)
