"""GLoRA: a weight and its bias, scaled and shifted."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, RunFailed
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_two_low_rank_matrices_train_and_what_a_bias_is_given() -> None:
    """Bloom's fused layer has one; what is none there would be zeros in the file."""
    trained = 24 * (2 * 8 * (2048 + 6144) + 8 * (2048 + 1) + 2)
    recording = estimating.record(Workload.of("1.3b", "glora", seq_len=16))
    assert (recording.trainable_params, recording.checkpoint_bytes) == (trained, 4 * trained)
    without = estimating.record(Workload.of("1.3b", "glora", seq_len=16, config_c="none", config_d_e="none"))
    trained = 24 * 2 * 8 * (2048 + 6144)
    assert without.trainable_params == trained
    assert without.checkpoint_bytes == 4 * trained + 2 * 24 * (2048 + 2 * 6144)


_VECTORS = {"config_a_b": "vector", "config_c": "vector", "config_d_e": "vector"}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 3},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, **_VECTORS},
        {"checkpointing": True, "config_a_b": "constant", "config_c": "none"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "glora", **options))


def test_a_weight_may_stay_as_it_is_where_there_is_a_bias() -> None:
    assert_alike(tiny("qwen2", "glora", config_a_b="none", target="q_proj,o_proj"))


@pytest.mark.parametrize(
    "options",
    [{"target": "o_proj"}, {"config_c": "none", "config_d_e": "none"}, {"target": "o_proj", "bias": "glora_only"}],
)
def test_nothing_to_train_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkload, match="--config-a-b none leaves nothing to train"):
        estimated(tiny("qwen2", "glora", config_a_b="none", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("falcon", {}), ("llama", {"quant": "nf4"})])
def test_what_is_no_plain_linear_layer_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match="peft refuses this"):
        producer(tiny(model_type, "glora", **options))
