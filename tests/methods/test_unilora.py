"""Uni-LoRA: one vector trains, whatever the rank and however many the targets."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_one_vector_trains_and_the_rest_is_saved_where_it_is_asked_for() -> None:
    """Of each of 24 * 4 * (2048 + 6144) entries its place in eight bytes, and its scale."""
    recording = estimating.record(Workload.of("1.3b", "unilora", seq_len=16))
    assert recording.trainable_params == 256
    assert recording.checkpoint_bytes == 4 * 256
    whole = estimating.record(Workload.of("1.3b", "unilora", seq_len=16, save_indices=True))
    assert whole.checkpoint_bytes == 4 * 256 + (8 + 4) * 24 * 4 * (2048 + 6144)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 3, "unilora_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear", "save_indices": True},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "unilora", **options))


def test_no_rate_of_a_dropout_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--unilora-dropout must be"):
        tiny("llama", "unilora", unilora_dropout=1)
