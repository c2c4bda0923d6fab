"""Estimate's stream of births and deaths against trace's, in cases that show each value of each dimension.

The cover of all pairs and fresh random cases: python -m tests.streams.
"""

from pathlib import Path

import pytest

from memcalc.errors import InvalidWorkload
from tests import cases, untraceable
from tests.cases import DIMENSIONS
from tests.comparison import compare

CASES = Path(__file__).with_name("streams_in_ci.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", [pytest.param(name, id=name.replace(" ", "-")) for name in CASES])
def test_both_tiers_say_the_same_block_by_block(name: str) -> None:
    result = compare(cases.named(name))
    assert result.verdict == "identical", f"{result.why}\n{result.context}"
    assert not result.besides


def test_every_value_of_every_dimension_is_in_a_case() -> None:
    shown = {word for name in CASES for word in cases.named(name)}
    assert shown | cases.FOUND == {value for dimension in DIMENSIONS for value in dimension.values}


def test_no_two_values_share_a_label() -> None:
    labels = [value for dimension in DIMENSIONS for value in dimension.values]
    assert len(set(labels)) == len(labels)


def test_a_case_is_named_by_what_is_not_plain() -> None:
    case = cases.named("lora qwen2 ckpt")
    assert cases.name(case) == "qwen2 lora ckpt"
    assert cases.named(cases.name(case)) == case
    with pytest.raises(ValueError, match="chkpt is no label"):
        cases.named("qwen2 chkpt")


def test_what_means_nothing_to_a_case_is_settled_and_never_drawn() -> None:
    case = cases.named("llama full lora-dropout")
    assert not cases.possible(case)
    with pytest.raises(InvalidWorkload, match="lora-dropout means nothing"):
        cases.workload(case)
    assert cases.settled(case) == cases.named("llama full")
    assert cases.possible(cases.settled(case))


@pytest.mark.parametrize(
    "name",
    [
        "mistral-window lora sdpa-flash",
        "llama-gqa-biases lora efficient",
        "llama lora efficient t4",
        "qwen2 qlora bias-all amp-fp16-over-fp16",
        "qwen2 qlora inference amp-bf16-over-bf16",
        "llama qlora sdpa-flash",
    ],
)
def test_what_is_left_out_beforehand_is_what_trace_refuses(name: str) -> None:
    assert any(refused(cases.named(name)) for refused in untraceable.REASONS.values())
    assert compare(cases.named(name)).verdict == "not run"
