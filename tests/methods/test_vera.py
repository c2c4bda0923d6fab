"""VeRA: shared random matrices, and two vectors per target."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_two_vectors_train_and_the_matrices_are_saved_once() -> None:
    """A fused output of 3 * 2048 behind a rank of 256."""
    recording = estimating.record(Workload.of("1.3b", "vera", seq_len=16))
    trained = 24 * (3 * 2048 + 256)
    assert recording.trainable_params == trained
    assert recording.checkpoint_bytes == 4 * (trained + 256 * (2048 + 3 * 2048))
    alone = estimating.record(Workload.of("1.3b", "vera", seq_len=16, save_projection=False))
    assert alone.checkpoint_bytes == 4 * trained


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 10, "vera_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear", "save_projection": False},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "vera_dropout": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "vera", **{"rank": 8, **options}))


def test_a_deep_model_is_its_first_layers_repeated() -> None:
    """The shared matrices are there once, whatever the depth."""
    assert_alike(tiny("llama", "vera", rank=8, target="all-linear", config_changes={"num_hidden_layers": 6}))


def test_no_rate_of_a_dropout_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--vera-dropout must be"):
        tiny("llama", "vera", vera_dropout=1)
