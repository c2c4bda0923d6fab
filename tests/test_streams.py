"""Estimate's stream of births and deaths against trace's, in cases that show each value of each dimension.

The cover of all pairs and fresh random cases: python -m tests.streams.
"""

import pytest

from memcalc.errors import InvalidWorkload
from tests import cases
from tests.cases import DIMENSIONS
from tests.comparison import compare

CASES = """
bloom-dropout full fp32 padded forloop keep-next to-zero accum-2 cache first len-8 h100
llama-gqa-biases qlora-all bias-lora-only double-raw ckpt amp-bf16-over-fp32 sdpa-flash plain keep-next unclipped after-short-empty batch-1 load-map
mistral-window qlora lora-dropout single-peft amp-fp16-over-fp16 sdpa momentum keep-backward to-zero unclipped accum-2 cache after-empty-same batch-1 len-1
qwen2 lora rslora ckpt amp-fp16-over-fp32 flash sgd plain keep-step to-zero unclipped accum-2 after-empty-same len-130 h100 load-map
mistral-window qlora-all double-trl reentrant amp-bf16-over-bf16 math padded momentum plain unclipped accum-2 after-longer batch-3 len-8 t4 load-map
bloom qlora-all lora-dropout single-peft ckpt amp-fp16-over-fp16 padded fused keep-step accum-3 first batch-3 t4 load-map
mistral qlora adapter-as-base single-raw reentrant amp-bf16-over-fp32 sdpa-flash forloop keep-backward to-zero accum-3 after-short-empty h100
bloom-6-heads qlora-all rslora double-raw reentrant amp-fp16-over-fp16 eager padded forloop to-zero after-empty-same batch-1 len-64 t4
bloom qlora bias-all single-raw ckpt fp16 padded sgd plain keep-backward to-zero unclipped first batch-1 len-8 load-map
llama-gqa-biases qlora bias-lora-only single-trl reentrant math padded forloop keep-step to-zero accum-3 after-longer len-130
qwen2-wide-heads lora bias-all fp16 efficient padded fused keep-next to-zero unclipped accum-2 cache after-short-empty batch-3 len-64 h100 load-map
llama qlora adapter-as-base double-raw ckpt amp-fp16-over-fp32 sdpa padded forloop plain keep-next unclipped accum-3 after-longer batch-3 len-1 t4 load-map
llama-dropout qlora-all rslora double-trl amp-bf16-over-bf16 flash fused keep-backward to-zero accum-3 cache first batch-1 len-130
qwen2 qlora-all double-raw amp-fp16-over-fp32 sdpa fused keep-step cache len-8
bloom-6-heads qlora-all lora-dropout single-peft amp-bf16-over-fp32 eager sgd to-zero unclipped cache after-longer len-64 h100
mistral-window lora-all bias-all reentrant amp-fp16-over-fp16 math plain keep-next accum-3 after-empty-same h100
llama-dropout full reentrant amp-bf16-over-fp32 efficient padded momentum plain keep-step unclipped accum-3 first len-1
bloom-dropout qlora-all bias-all single-trl reentrant fused plain unclipped after-empty-same batch-1 len-1 h100 load-map
llama qlora bias-lora-only single-trl amp-bf16-over-fp32 math padded sgd keep-backward to-zero unclipped accum-2 cache after-short-empty batch-1 len-8 t4
qwen2-wide-heads lora-all adapter-as-base ckpt amp-bf16-over-bf16 sdpa-flash sgd plain keep-step accum-2 after-empty-same batch-3 len-8
mistral qlora-all lora-dropout double-raw ckpt fp16 math momentum plain keep-next to-zero unclipped accum-2 first batch-3 len-130 h100 load-map
bloom full ckpt amp-fp16-over-fp32 eager momentum keep-backward to-zero accum-2 after-short-empty batch-3 len-64 h100
qwen2 qlora lora-dropout single-trl ckpt amp-bf16-over-bf16 eager padded forloop keep-next to-zero unclipped accum-3 first batch-1 t4 load-map
llama-dropout qlora rslora single-raw ckpt fp32 efficient sgd plain keep-next to-zero accum-2 after-longer batch-3 t4 load-map
qwen2-wide-heads qlora double-raw reentrant amp-fp16-over-fp16 flash sgd keep-next to-zero after-short-empty batch-1 len-130
llama-gqa-biases full reentrant fp16 sdpa sgd plain to-zero accum-3 after-empty-same t4
llama-gqa-biases qlora bias-all double-trl ckpt amp-bf16-over-bf16 sdpa-flash fused keep-step to-zero accum-2 first len-64 h100
mistral-window lora bias-lora-only ckpt sdpa padded momentum to-zero first len-64 t4 load-map
llama lora bias-lora-only reentrant amp-fp16-over-fp16 flash fused plain keep-backward to-zero unclipped accum-3 after-longer batch-3 len-8 load-map
qwen2-wide-heads qlora-all rslora single-peft reentrant fp32 math plain after-longer len-8
bloom qlora rslora double-raw reentrant forloop plain keep-backward to-zero accum-3 after-longer len-8 h100
qwen2 qlora-all adapter-as-base single-peft reentrant fp16 efficient padded forloop plain keep-step to-zero after-short-empty batch-1 len-1 h100
mistral-window qlora adapter-as-base single-raw reentrant amp-fp16-over-fp32 math fused plain keep-step to-zero unclipped accum-2 first batch-1 len-1 load-map
llama-gqa-biases qlora lora-dropout single-raw ckpt amp-fp16-over-fp16 math padded momentum plain keep-backward to-zero unclipped accum-2 batch-1 len-64 t4
llama-dropout qlora rslora single-trl inference amp-bf16-over-bf16 sdpa padded cache batch-3 len-64 h100 load-map
llama qlora-all bias-all single-raw inference fp16 efficient len-130 t4
mistral qlora bias-lora-only single-peft inference amp-fp16-over-fp32 efficient padded cache batch-3 len-8
llama qlora lora-dropout double-trl inference flash cache h100
llama-gqa-biases lora-all rslora inference amp-bf16-over-fp32 sdpa-flash cache batch-3 len-1 h100
qwen2-wide-heads lora lora-dropout reentrant eager sgd plain keep-backward accum-3 batch-3 len-1 t4 cpu
mistral lora-all adapter-as-base fp32 eager padded fused plain keep-step to-zero unclipped accum-3 cache after-longer batch-1 len-64 cpu load-map
bloom-6-heads lora-all bias-lora-only ckpt fp32 momentum after-short-empty batch-3 len-1 h100 cpu
""".strip().splitlines()


@pytest.mark.parametrize("name", CASES)
def test_both_tiers_say_the_same_block_by_block(name: str) -> None:
    result = compare(cases.named(name))
    assert result.verdict == "identical", f"{result.why}\n{result.context}"
    assert not result.besides


def test_every_value_of_every_dimension_is_in_a_case() -> None:
    shown = {word for name in CASES for word in cases.named(name)}
    assert shown == {value for dimension in DIMENSIONS for value in dimension.values}


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
        "llama full amp-fp16-over-fp16",
        "qwen2 qlora inference amp-bf16-over-bf16",
        "llama qlora sdpa-flash",
    ],
)
def test_what_is_left_out_beforehand_is_what_trace_refuses(name: str) -> None:
    assert any(refused(cases.named(name)) for refused in cases.UNTRACEABLE.values())
    assert compare(cases.named(name)).verdict == "not run"
