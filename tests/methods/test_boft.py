"""BOFT: one rotation in blocks, as peft makes it without its CUDA extension."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_blocks_of_the_inputs_width_and_a_scale_per_output_train() -> None:
    assert estimating.record(Workload.of("1.3b", "boft", seq_len=16)).trainable_params == 24 * (4 * 2048 + 3 * 2048)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "boft_block_size": 8},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "boft_block_num": 2},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "boft", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("llama", {"boft_block_size": 7})])
def test_what_peft_refuses_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny(model_type, "boft", **options))


def test_what_cannot_be_and_what_is_not_written_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="are one choice"):
        tiny("llama", "boft", boft_block_size=8, boft_block_num=8)
    with pytest.raises(NotModelled, match="--boft-dropout: memcalc trace runs it"):
        estimating.record(tiny("llama", "boft", boft_dropout=0.1))
