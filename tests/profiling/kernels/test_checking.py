import json
from typing import Any

from memcalc import kernels
from memcalc.catalog.find import find_gpu
from memcalc.profiling.kernels import checking
from memcalc.profiling.kernels.probe import rounded

HEAD: Any = {"schema": "memcalc.kernels/1", "gpu": json.loads(json.dumps(find_gpu("a100-80gb")._asdict()))}
FLASH: Any = {"batch": 1, "q_len": 684, "k_len": 684, "heads": 8, "kv_heads": 8, "head_dim": 64, "dtype": "fp16"}


def record(entry: str, arguments: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {**HEAD, "entry": entry, "arguments": arguments, **rest}


def flash(beyond: int = 0) -> dict[str, Any]:
    """A backward that used what the table says, and `beyond` more."""
    scratch = kernels.flash_backward_scratch(**FLASH)
    outputs = [8 * 684 * 64 * 2] * 3
    peak = sum(map(rounded, (*outputs, *scratch.before, *scratch.after))) + beyond
    blocks = {"before": list(scratch.before), "after": [*scratch.after, *([beyond] * bool(beyond))]}
    return record("flash_backward_scratch", FLASH, measured={**blocks, "outputs": outputs, "peak": peak})


def word(found: list[checking.Verdict], entry: str) -> str:
    return next(verdict.word for verdict in found if verdict.entry == entry)


def test_without_records_everything_is_unmeasured() -> None:
    found = checking.verdicts([])
    assert {verdict.word for verdict in found} == {"unmeasured"}
    assert {verdict.entry for verdict in found} == {*checking.ENTRIES, *checking.FACTS}


def test_blocks_that_meet_the_table_confirm_it() -> None:
    assert word(checking.verdicts([flash(), flash()]), "flash_backward_scratch") == "confirmed"


def test_one_case_that_is_off_makes_an_entry_wrong_and_says_by_how_much() -> None:
    found = checking.verdicts([flash(), flash(beyond=4096)])
    assert word(found, "flash_backward_scratch") == "wrong"
    lines = [line for verdict in found for line in verdict.lines() if "+4,096 bytes" in line]
    assert len(lines) == 1
    assert '"q_len": 684' in lines[0]


def test_values_are_compared_as_they_are() -> None:
    right = record("cublas_workspace", {}, measured={"value": 8519680})
    wrong = record("cublas_workspace", {}, measured={"value": 33554432})
    assert checking.compare(right) is None
    assert checking.compare(wrong) == "+25,034,752: 33,554,432, not 8,519,680"
    shape = record("flash_lse_shape", {"batch": 2, "heads": 3, "q_len": 5}, measured={"value": [2, 3, 5]})
    assert checking.compare(shape) is None
    choice = {"dtype": "fp16", "training": True, "q_len": 8, "k_len": 8, "head_dim": 64, "heads": 4, "kv_heads": 4}
    choice |= {"masked": True, "causal": False, "dropout": 0.0}
    assert checking.compare(record("sdpa_kernel", choice, measured={"value": "math"})) == "'math', not 'efficient'"


def test_an_operator_that_the_table_does_not_speak_of_should_allocate_nothing_inside() -> None:
    plain = {"before": [], "after": [], "outputs": [512], "peak": 512}
    assert checking.compare(record("bmm", {}, measured=plain)) is None
    assert checking.compare(record("bmm", {}, measured={**plain, "after": [100], "peak": 1024})) is not None


def test_what_was_refused_is_unmeasured_with_its_reason() -> None:
    found = checking.verdicts([record("flash_lse_shape", {}, refused="RuntimeError: needs sm80")])
    (line,) = next(verdict for verdict in found if verdict.entry == "flash_lse_shape").lines()
    assert line.startswith("unmeasured")
    assert line.endswith("RuntimeError: needs sm80")


def test_a_figure_that_nobody_predicts_is_shown() -> None:
    found = checking.verdicts([record("cuda_context_when_empty", {}, measured={"value": 503316480})])
    (line,) = next(verdict for verdict in found if verdict.entry == "cuda_context_when_empty").lines()
    assert line.endswith("nothing to compare with, measured 503,316,480")


def test_of_figures_that_nobody_predicts_the_least_and_the_largest_are_shown() -> None:
    shapes = {"rows": 512, "columns": 512}
    records = [record("cusolver_svd_workspace", shapes, measured={"value": size}) for size in (4096, 0, 1_048_576)]
    found = checking.verdicts([*records, record("cusolver_svd_workspace", shapes, refused="RuntimeError: no")])
    (line,) = next(verdict for verdict in found if verdict.entry == "cusolver_svd_workspace").lines()
    assert line.startswith("unmeasured")
    assert line.endswith("nothing to compare with, measured 0 to 1,048,576")


def test_where_singular_vectors_lie_is_a_fact() -> None:
    lies = "singular_vectors_lie_by_rows"
    shapes = {"rows": 64, "columns": 128}
    assert word(checking.verdicts([record(lies, shapes, measured={"value": True})]), lies) == "confirmed"
    assert word(checking.verdicts([record(lies, shapes, measured={"value": False})]), lies) == "wrong"
