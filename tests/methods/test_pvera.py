"""PVeRA: as VeRA, with noise between its matrices."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_means_and_variances_train_and_the_matrices_are_saved_once() -> None:
    """A fused output of 3 * 2048 behind a rank of 256."""
    recording = estimating.record(Workload.of("1.3b", "pvera", seq_len=16))
    trained = 24 * (3 * 2048 + 2 * 256)
    assert recording.trainable_params == trained
    assert recording.checkpoint_bytes == 4 * (trained + 256 * (2 * 2048 + 3 * 2048))
    alone = estimating.record(Workload.of("1.3b", "pvera", seq_len=16, save_projection=False))
    assert alone.checkpoint_bytes == 4 * trained


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 10, "pvera_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear", "save_projection": False},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"mode": "inference", "sample_at_inference": True},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "pvera_dropout": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "pvera", **{"rank": 8, **options}))


def test_no_rate_of_a_dropout_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--pvera-dropout must be"):
        tiny("llama", "pvera", pvera_dropout=1)
