"""DeLoRA: directions of length one, and a bound that trains."""

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


def test_a_lora_and_a_bound_train_and_the_weights_norms_are_saved() -> None:
    recording = estimating.record(Workload.of("1.3b", "delora", seq_len=16))
    trained = 24 * (8 * (2048 + 6144) + 1)
    assert recording.trainable_params == trained
    assert recording.checkpoint_bytes == 4 * (trained + 24 * 2048)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 3, "module_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"autocast_adapter_dtype": False, "checkpointing": True},
        {"batch": 1, "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "delora", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("llama", {"quant": "nf4"})])
def test_what_peft_cannot_do_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match=r"Conv1D|norm"):
        producer(tiny(model_type, "delora", **options))
