"""The cases are calls that torch accepts, and arguments that the table accepts: only a GPU can run them for real."""

import inspect
import json
import warnings
from collections import defaultdict
from typing import Any

import pytest

from memcalc import kernels
from memcalc.catalog.find import gpus
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


def runs_without_a_gpu(case: Case) -> bool:
    alone = case.entry in ON_A_GPU_ONLY or case.entry.endswith(("_dim", "_width")) or case.arguments.get("dropout")
    return not case.needs and not alone


@pytest.mark.parametrize(
    "case", some([case for case in CASES if runs_without_a_gpu(case)], 3), ids=lambda case: case.entry
)
def test_a_case_is_a_call_that_torch_accepts(case: Case) -> None:
    result = case.prepare("cpu" if case.entry.startswith("sparse_") else "meta")()
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
