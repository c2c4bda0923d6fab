"""TinyLoRA: a few numbers for each weight, or for several."""

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


@pytest.mark.parametrize(("tying", "groups"), [(0.0, 24), (0.5, 12), (0.9, 2), (1.0, 1)])
def test_as_many_numbers_train_as_targets_do_not_share(tying: float, groups: int) -> None:
    recording = estimating.record(Workload.of("1.3b", "tinylora", seq_len=16, weight_tying=tying, u=13))
    assert recording.trainable_params == groups * 13
    assert recording.checkpoint_bytes == 4 * (groups * 13 + 24 * (2 * (2048 + 6144) + 13 * 2 * 2))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 3, "tinylora_dropout": 0.1, "weight_tying": 0.4},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear", "rank": 1},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"u": 1, "amp": "bf16", "weight_tying": 1.0},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "tinylora", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_a_packed_base_is_refused(producer: Callable[[Workload], Recording], quant: str) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match=r"decomposes|floating point"):
        producer(tiny("llama", "tinylora", quant=quant))


@pytest.mark.parametrize(
    ("options", "told"), [({"weight_tying": 1.5}, "--weight-tying"), ({"tinylora_dropout": 1}, "--tinylora-dropout")]
)
def test_shares_that_are_none_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidWorkload, match=f"{told} must be"):
        tiny("llama", "tinylora", **options)
