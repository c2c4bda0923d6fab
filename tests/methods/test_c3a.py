"""C3A: circulant blocks, multiplied by way of their spectra."""

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


def test_a_kernel_for_each_block_trains() -> None:
    recording = estimating.record(Workload.of("1.3b", "c3a", seq_len=16))
    assert recording.trainable_params == 24 * 2048 * 6144 // 256


@pytest.mark.parametrize("model_type", ["llama", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "block_size": 8},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "block_size": 1},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "c3a", **options))


def test_a_block_as_wide_as_the_weight_takes_no_matrix_product() -> None:
    assert_alike(tiny("opt", "c3a", block_size=64, batch=1))


def test_over_eight_bits_it_can_be_used() -> None:
    assert_alike(tiny("gpt2", "c3a", quant="int8", mode="inference"))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("model_type", "options"), [("gpt2", {}), ("llama", {"block_size": 24}), ("llama", {"quant": "int8"})]
)
def test_what_peft_cannot_do_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match=r"Conv1D|no multiple|should be a factor|in ?place"):
        producer(tiny(model_type, "c3a", **options))
