"""Poly: what trains, what it cannot go with, and its stream."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import footprint_of
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_skills_and_each_tasks_mixture_of_them_train() -> None:
    recording = estimating.record(tiny("llama", "poly", rank=3, n_tasks=5, n_skills=4, n_splits=2))
    of_skills = 4 * 3 * ((64 + 64) + (64 + 32))
    assert recording.trainable_params == 3 * (of_skills + 2 * 5 * 4 * 2)


def test_what_it_cannot_go_with_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--checkpointing cannot go with --method poly: peft tells each layer"):
        tiny("llama", "poly", checkpointing=True)
    for model_type, options, said in (
        ("gpt2", {}, "is a Conv1D"),
        ("llama", {"n_splits": 3}, "--n-splits 3 does not divide"),
        ("opt", {"target": "all-linear"}, "fc1 is given one matrix for all rows"),
        ("llama", {"quant": "int8"}, "in place, which autograd does not let it"),
    ):
        with pytest.raises(InvalidWorkload, match=said):
            estimating.record(tiny(model_type, "poly", **options))


def test_three_layers_tell_the_peak_of_nine() -> None:
    w = tiny("llama", "poly", config_changes={"num_hidden_layers": 9})
    assert estimating.peak_live(w) == footprint_of(w, estimating.record(w), "estimate").peak_live


def test_its_stream_in_use_is_traces() -> None:
    assert_alike(tiny("qwen2", "poly", mode="inference", quant="int8"))


@pytest.mark.parametrize("model_type", ["llama", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"loop": "plain", "amp": "bf16", "batch": 1, "n_splits": 2},
        {"n_splits": 2, "n_tasks": 3, "padded": True, "grad_accum": 2},
        {"dtype": "fp32", "amp": "bf16", "n_skills": 1},
        {"quant": "nf4", "amp": "bf16", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "poly", **options))
