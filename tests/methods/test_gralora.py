"""GraLoRA: a weight's blocks, each with a low-rank update of its own."""

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


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_as_many_train_as_of_a_lora_however_many_blocks_there_are(blocks: int) -> None:
    recording = estimating.record(Workload.of("1.3b", "gralora", seq_len=16, gralora_k=blocks, hybrid_r=3))
    assert recording.trainable_params == 24 * 35 * (2048 + 6144)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 8, "gralora_k": 4, "gralora_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all", "hybrid_r": 3},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear", "hybrid_r": 1},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False, "gralora_k": 1},
        {"quant": "nf4", "target": "all-linear"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "gralora", **options))


def test_over_eight_bits_it_can_be_used() -> None:
    assert_alike(tiny("bloom", "gralora", quant="int8", dtype="fp16", mode="inference"))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    "options",
    [
        {"gralora_k": 32, "target": "down_proj"},
        {"quant": "int8"},
        {"quant": "int8", "config_changes": {"num_hidden_layers": 1}, "checkpointing": False},
    ],
)
def test_what_peft_cannot_do_is_refused(producer: Callable[[Workload], Recording], options: dict[str, Any]) -> None:
    """176 inputs, and a sum in place over what bitsandbytes returns."""
    with pytest.raises((InvalidWorkload, RunFailed), match=r"no multiple|divisible|in ?place"):
        producer(tiny("llama", "gralora", **options))


def test_a_rank_that_blocks_cannot_share_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--rank 6 is no multiple of --gralora-k 4"):
        tiny("llama", "gralora", rank=6, gralora_k=4)
