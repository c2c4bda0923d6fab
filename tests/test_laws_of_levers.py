"""What holds for levers: those that only free memory never cost any, whatever else is chosen."""

import random
from typing import Any, Final

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memcalc import estimating, methods
from memcalc.allocator import live_levels
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.workload import Workload
from tests.tiny import tiny

MODELS: Final = st.sampled_from(["llama", "gpt2", "opt", "bloom", "qwen3", "cohere"])
METHODS: Final = st.sampled_from(methods.names())
# Each of these frees something and allocates nothing: what is changed, seen from what it was.
FREEING: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "the output is released": ({"keep_logits": "next"}, {"keep_logits": "none"}),
    "the output is released before backward": ({"keep_logits": "step"}, {"keep_logits": "backward"}),
    "gradients are set to None": ({"zero_grad": "zero"}, {"zero_grad": "none"}),
    "no cache is filled": ({"use_cache": True}, {"use_cache": False}),
    "embeddings are not noisy": ({"neftune_alpha": 5.0}, {"neftune_alpha": None}),
    "momentum is not kept": ({"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "sgd", "momentum": 0.0}),
    "nothing is kept for Adam": ({"optimizer": "adamw_torch"}, {"optimizer": "sgd"}),
    "fewer micro-batches wait on the device": ({"grad_accum": 3}, {"grad_accum": 2}),
    "no mask is passed": ({"padded": True, "attention": "eager"}, {"padded": False, "attention": "eager"}),
}


@st.composite
def _others(draw: st.DrawFn) -> dict[str, Any]:
    """Options beside the lever."""
    return {
        "loop": draw(st.sampled_from(["trainer", "plain"])),
        "checkpointing": draw(st.booleans()),
        "quant": draw(st.sampled_from(["none", "none", "nf4", "int8"])),
        "kbit_prepare": "none",
        "loss": draw(st.sampled_from(["nll", "nll", "chunked-nll"])),
        "amp": draw(st.sampled_from(["none", "bf16"])),
        "attention": draw(st.sampled_from(["auto", "eager"])),
        "history": draw(st.sampled_from(["none", "same"])),
        "batch": draw(st.integers(1, 3)),
        "seq_len": draw(st.sampled_from([1, 8, 40, 130])),
    }


def _workload(model_type: str, method: str, options: dict[str, Any]) -> Workload:
    """The workload, or another draw where it is none."""
    try:
        w = tiny(model_type, method, **options)
        estimating.family_of(w)
    except (InvalidWorkload, NotModelled):
        assume(condition=False)
        raise AssertionError from None
    return w


def _peak(w: Workload) -> int:
    try:
        return estimating.peak_live(w)
    except (InvalidWorkload, NotModelled):
        assume(condition=False)
        raise


@settings(max_examples=60)
@given(MODELS, METHODS, st.sampled_from(sorted(FREEING)), _others())
def test_a_lever_that_only_frees_memory_never_raises_the_peak(
    model_type: str, method: str, lever: str, others: dict[str, Any]
) -> None:
    before, after = ({**others, **changes} for changes in FREEING[lever])
    assert _peak(_workload(model_type, method, after)) <= _peak(_workload(model_type, method, before))


@settings(max_examples=30)
@given(MODELS, METHODS, _others())
def test_the_parts_sum_up_to_the_peak_under_any_method(model_type: str, method: str, others: dict[str, Any]) -> None:
    w = _workload(model_type, method, others)
    peak = _peak(w)
    timeline = estimating.record(w).timeline
    levels = live_levels(timeline)
    assert levels.peak_at is not None
    parts = timeline.bytes_by_category(timeline.alive_at(levels.peak_at + 1), levels.rounded)
    assert sum(parts.values()) == levels.peak_live == peak
    assert min(parts.values(), default=0) >= 0


@settings(max_examples=30)
@given(MODELS, METHODS, _others(), st.integers(1, 3))
def test_more_sequences_need_no_less_under_any_method(
    model_type: str, method: str, others: dict[str, Any], more: int
) -> None:
    more_of_them = {**others, "batch": others["batch"] + more}
    assert _peak(_workload(model_type, method, others)) <= _peak(_workload(model_type, method, more_of_them))


@settings(max_examples=30)
@given(MODELS, METHODS, _others(), st.integers(1, 40))
def test_longer_sequences_need_no_less_under_any_method(
    model_type: str, method: str, others: dict[str, Any], more: int
) -> None:
    """In plain bases, under eager attention: kernels of packed weights and of attention change with the size."""
    others = {**others, "attention": "eager", "quant": "none"}
    longer = {**others, "seq_len": others["seq_len"] + more}
    assert _peak(_workload(model_type, method, others)) <= _peak(_workload(model_type, method, longer))


@settings(max_examples=25)
@given(MODELS, METHODS, _others(), st.randoms(use_true_random=False))
def test_the_order_of_options_changes_no_figure(
    model_type: str, method: str, others: dict[str, Any], source: random.Random
) -> None:
    names = list(others)
    source.shuffle(names)
    w, other = (_workload(model_type, method, {name: others[name] for name in order}) for order in (others, names))
    assert w == other
    assert _peak(w) == _peak(other)
