"""Pfeiffer adapters: one bottleneck a layer; AdapterDrop: none in the lowest layers."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimate, estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_a_dropped_adapter_is_not_there() -> None:
    per_layer = 2 * 64 * 4 + 4 + 64
    for dropped in (0, 1, 2):
        recording = estimating.record(tiny("llama", "pfeiffer", drop_layers=dropped))
        assert recording.trainable_params == (3 - dropped) * per_layer


def test_adapter_drop_leaves_the_lowest_five_out_unless_told_otherwise() -> None:
    assert estimate("1.3b", "adapter_drop", seq_len=16).workload["drop_layers"] == 5
    assert estimate("1.3b", "adapter_drop", seq_len=16, drop_layers=7).workload["drop_layers"] == 7


def test_nothing_of_a_dropped_layer_is_kept_for_backward() -> None:
    timeline = estimating.record(tiny("llama", "adapter_drop", drop_layers=1, history="none")).timeline
    backward = next(mark.at for mark in timeline.marks if mark.name == "backward")
    alive = [row for row in timeline.alive_at(backward) if timeline.categories[row] == "activations"]
    kept = {timeline.labels[row][0].removeprefix("model.layers.")[:1] for row in alive if timeline.labels[row][0]}
    assert "0" not in kept
    assert kept >= {"1", "2"}


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2"])
@pytest.mark.parametrize("method", ["pfeiffer", "adapter_drop"])
@pytest.mark.parametrize(
    "options",
    [{"checkpointing": True}, {"amp": "bf16", "non_linearity": "gelu_new"}, {"quant": "nf4", "reentrant": True}],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, method: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, method, **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_layers": 3}, "--drop-layers 3 leaves no adapter in a model of 3 layers"),
        ({"drop_layers": 2, "target": "layers.1.mlp.down_proj"}, "--drop-layers 2 leaves no adapter"),
        ({"bottleneck": 4, "reduction_factor": 8}, "--bottleneck and --reduction-factor are one choice"),
    ],
)
def test_what_cannot_be_is_refused(
    producer: Callable[[Workload], Recording], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny("llama", "pfeiffer", **options))
