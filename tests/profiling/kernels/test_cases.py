"""The cases are calls that torch accepts, and arguments that the table accepts: only a GPU can run them for real."""

import inspect
import json
import warnings
from collections import defaultdict
from typing import Any

import pytest

from memcalc import kernels
from memcalc.catalog.find import gpus
from memcalc.kernels.choosing import _FEW_ROWS, _LARGE_SORT, _SHARED, _SHARED_BY_MANY, _SMALL_SORT
from memcalc.profiling.kernels import checking, choosing, suite
from memcalc.profiling.kernels.case import Case
from memcalc.profiling.kernels.probe import Inside

CASES = list(suite.cases())
ONCE = ("cublas_workspace",)  # seen in process.py, where there is no case
NOTHING = Inside((), (), (), (), (), 0)


def some(cases: list[Case], of_each: int) -> list[Case]:
    """A few of each entry, from its whole range."""
    by_entry: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_entry[case.entry].append(case)
    return [case for found in by_entry.values() for case in found[:: -(-len(found) // of_each)]]


def test_every_entry_of_the_table_has_a_case() -> None:
    assert set(checking.ENTRIES) - {case.entry for case in CASES} == set(ONCE)


def test_what_the_table_leaves_out_has_cases_too() -> None:
    """A value of which the table says nothing is one that is left out, or a fact."""
    found = {case.entry for case in CASES}
    assert found >= suite.LEFT_OUT
    assert not suite.LEFT_OUT & set(checking.ENTRIES)
    of_no_entry = {case.entry for case in CASES if case.value is not None} - set(checking.ENTRIES)
    assert of_no_entry <= suite.LEFT_OUT | set(checking.FACTS)


def test_a_record_of_each_case_can_be_checked() -> None:
    gpu = json.loads(json.dumps(next(iter(gpus()))._asdict()))
    for case in CASES:
        predicted = checking.predict({"entry": case.entry, "arguments": case.arguments, "gpu": gpu})
        assert (predicted is None) == (case.entry in suite.LEFT_OUT)
        if case.value is None:
            assert isinstance(predicted, kernels.Scratch)


def test_topk_is_looked_at_on_both_sides_of_each_length_from_which_rows_are_shared() -> None:
    seen = {(case.arguments["rows"], case.arguments["length"]) for case in CASES if case.entry == "topk_scratch"}
    fewest = 1
    for most, shared_from in (*_SHARED, (10**9, _SHARED_BY_MANY)):
        lengths = {length for rows, length in seen if fewest <= rows <= most}
        assert {shared_from - 1, shared_from} <= lengths
        fewest = most + 1


@pytest.mark.parametrize(
    ("entry", "blocks"), [("topk_scratch", {0, 7}), ("sort_scratch", {1, 2}), ("bmm_scratch", {0, 1, 2})]
)
def test_cases_lie_on_both_sides_of_each_branch(entry: str, blocks: set[int]) -> None:
    (gpu, *_), function = gpus(), getattr(kernels, entry)
    given = {"gpu": gpu} if entry == "topk_scratch" else {}
    found = [function(**given, **case.arguments) for case in CASES if case.entry == entry]
    assert {len(scratch.after) for scratch in found} == blocks


def test_a_sort_is_looked_at_on_both_sides_of_each_limit() -> None:
    seen = {(case.arguments["rows"], case.arguments["length"]) for case in CASES if case.entry == "sort_scratch"}
    assert {
        (8, _SMALL_SORT),
        (8, _SMALL_SORT + 1),
        (1, _SMALL_SORT + 1),
        (2, _LARGE_SORT - 1),
        (2, _LARGE_SORT),
    } <= seen
    assert {(_FEW_ROWS - 1, _SMALL_SORT + 1), (_FEW_ROWS, _SMALL_SORT + 1)} <= seen


def test_every_layout_of_factors_is_a_call_that_torch_accepts() -> None:
    for case in (case for case in CASES if case.entry == "bmm_scratch"):
        (left, _), (right, _) = case.arguments["left"], case.arguments["right"]
        result = case.prepare("meta")()
        assert (list(result.shape), result.element_size()) == ([*left[:2], right[2]], case.arguments["itemsize"])


@pytest.mark.parametrize("entry", sorted({case.entry for case in CASES} & set(checking.ENTRIES)))
def test_the_arguments_of_a_case_are_those_of_its_entry(entry: str) -> None:
    function = getattr(kernels, entry)
    for case in (case for case in CASES if case.entry == entry):
        assert json.loads(json.dumps(case.arguments)) == case.arguments
        for gpu in gpus():
            given = {"gpu": gpu} if "gpu" in inspect.signature(function).parameters else {}
            predicted = function(**given, **case.arguments)
            assert isinstance(predicted, kernels.Scratch) == (case.value is None)


ON_A_GPU_ONLY = {  # no kernel of meta's
    "sdpa_kernel", "takes_gqa", "cudnn_rnn_weights", "cudnn_rnn_backward_workspace", "cudnn_dropout_state",
}  # fmt: skip


BY_VALUES = ("sparse_", "cub_")  # their results' sizes are known by values alone, which meta has not


def runs_without_a_gpu(case: Case) -> bool:
    alone = case.entry in ON_A_GPU_ONLY or case.entry.endswith(("_dim", "_width")) or case.arguments.get("dropout")
    return not case.needs and not alone


@pytest.mark.parametrize(
    "case", some([case for case in CASES if runs_without_a_gpu(case)], 3), ids=lambda case: case.entry
)
def test_a_case_is_a_call_that_torch_accepts(case: Case) -> None:
    result = case.prepare("cpu" if case.entry.startswith(BY_VALUES) else "meta")()
    if case.value is not None:
        json.dumps(case.value(NOTHING, result))


@pytest.mark.parametrize(
    "case", some([case for case in CASES if case.needs == "bitsandbytes"], 4), ids=lambda c: c.entry
)
def test_a_case_is_a_call_that_bitsandbytes_accepts(case: Case) -> None:
    pytest.importorskip("bitsandbytes")
    if case.arguments.get("threshold"):
        pytest.skip("finds outliers, which meta has not")
    case.prepare("meta")()


@pytest.mark.parametrize("case", some(list(choosing.cases()), 4), ids=lambda case: case.entry)
def test_a_choice_is_asked_for_with_arguments_that_sdpa_accepts(case: Case) -> None:
    op = case.prepare("cpu")
    with warnings.catch_warnings(action="ignore"):
        if case.entry == "efficient_mask_width":  # which the CPU has not
            with pytest.raises(RuntimeError, match="|".join(choosing.REFUSALS)):
                op()
            return
        result = op()
    if case.entry == "sdpa_kernel":
        assert result in {"flash", "math"}
    if case.entry == "takes_gqa":
        assert (result is None) == (case.arguments["kernel"] in {"efficient", "cudnn"})


def test_widths_are_read_from_the_blocks_of_a_call() -> None:
    def blocks(*births: int) -> Inside:
        return Inside(births, (), (), (), (), 0)

    row: Any = 2 * 684 * 2
    padded = blocks(2 * row * 64, 2 * row * 64, 2 * row * 64, 2 * row * 64)
    assert choosing._padded_head_dim(padded, None) == 64
    assert choosing._mask_width(687)(blocks(2, row * 687, row * 688, row * 128), None) == 688
    assert choosing._mask_width(687)(blocks(row * 687), None) is None
