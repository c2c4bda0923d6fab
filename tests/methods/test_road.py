"""RoAd: pairs of outputs are rotated and scaled."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


@pytest.mark.parametrize(("variant", "of_each"), [("road_1", 1), ("road_2", 2), ("road_4", 4)])
def test_angles_and_scales_train(variant: str, of_each: int) -> None:
    """Of a fused output of 3 * 2048."""
    recording = estimating.record(Workload.of("1.3b", "road", seq_len=16, variant=variant))
    assert recording.trainable_params == 24 * of_each * 6144


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "variant": "road_2"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "variant": "road_4"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "road", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("llama", {"group_size": 24})])
def test_what_peft_refuses_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny(model_type, "road", **options))


def test_a_group_without_halves_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--group-size 7 has no halves"):
        tiny("llama", "road", group_size=7)
