"""RandLoRA: shared random bases, and what scales them."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_scales_and_gains_train_and_the_bases_are_saved_for_every_target() -> None:
    """A width of 2048 in 64 bases of rank 32."""
    recording = estimating.record(Workload.of("1.3b", "randlora", seq_len=16))
    trained = 24 * 64 * (32 + 2048)
    assert recording.trainable_params == trained
    bases = 32 * 2048 + 3 * 2048 * 64 * 32
    assert recording.checkpoint_bytes == 4 * trained + 4 * 25 * bases
    alone = estimating.record(Workload.of("1.3b", "randlora", seq_len=16, save_projection=False))
    assert alone.checkpoint_bytes == 4 * trained


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 10, "randlora_dropout": 0.1},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all", "save_projection": False},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "randlora_dropout": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "randlora", **options))
