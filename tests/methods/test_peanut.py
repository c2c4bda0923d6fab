"""PEANuT: a weight's update is what a small network makes of the weight."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled, RunFailed
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


@pytest.mark.parametrize("depth", [0, 3])
def test_it_trains_two_matrices_of_outputs_and_its_layers(depth: int) -> None:
    recording = estimating.record(Workload.of("1.3b", "peanut", seq_len=16, rank=8, depth=depth))
    assert recording.trainable_params == 24 * (2 * 8 * 6144 + 2 * depth * 8 * 8)


@pytest.mark.parametrize("model_type", ["llama", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "depth": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "depth": 1, "act_fn": "silu"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"checkpointing": True, "act_fn": "gelu_new", "depth": 1},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "peanut", **{"rank": 3, **options}))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("llama", {"quant": "nf4"})])
def test_a_weight_that_it_cannot_read_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match=r"Conv1D|another shape|same reduction dim"):
        producer(tiny(model_type, "peanut", **options))


@pytest.mark.parametrize(("options", "why"), [({"act_fn": "prelu"}, "prelu"), ({"quant": "int8"}, "8-bit")])
def test_what_is_not_written_is_left_to_trace(options: dict[str, Any], why: str) -> None:
    with pytest.raises(NotModelled, match=why):
        estimated(tiny("llama", "peanut", **options))
