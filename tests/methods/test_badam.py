"""BAdam: one layer's fp32 copies and states at a time, and the switch to the next layer's."""

from collections.abc import Callable

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, RunFailed
from memcalc.recording import Recording
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 176 + 2 * 64


def _kept(timeline: Timeline, at: int) -> int:
    """Bytes of copies and states, counts of steps aside."""
    alive = [row for row in timeline.alive_at(at) if timeline.categories[row] == "optimizer_states"]
    return sum(timeline.nbytes[row] for row in alive if timeline.labels[row][1] != "step")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_copy_and_two_moments_of_one_layer_are_kept(dtype: str) -> None:
    timeline = estimating.record(tiny("llama", "badam", dtype=dtype)).timeline
    backward, optimizer = [mark.at for mark in timeline.marks if mark.name in ("backward", "optimizer")]
    assert _kept(timeline, backward) == 3 * 4 * _LAYER
    levels = [_kept(timeline, at) for at in range(optimizer, len(timeline.events) + 1)]
    assert max(levels) >= 4 * 4 * _LAYER, "the next layer's copy is there before the old one goes"
    assert levels[-1] == 4 * _LAYER


def test_it_is_the_lowest_layer_that_trains_in_the_measured_step() -> None:
    recording = estimating.record(tiny("llama", "badam", history="same,same"))
    timeline = recording.timeline
    optimizer = next(mark.at for mark in timeline.marks if mark.name == "optimizer")
    gradients = [row for row in timeline.alive_at(optimizer) if timeline.categories[row] == "gradients"]
    assert recording.trainable_params == _LAYER
    assert {timeline.labels[row][0].split(".")[2] for row in gradients} == {"0"}


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"checkpointing": True}),
        ("bloom", {"checkpointing": True, "reentrant": True, "history": "none"}),
        ("gpt2", {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "history": "8,empty,same"}),
        ("qwen2", {"loop": "plain", "zero_grad": "zero", "optimizer": "adamw_torch"}),
        ("opt", {"optimizer": "adamw_8bit"}),
        ("llama", {"dtype": "fp32", "amp": "fp16", "loop": "plain", "clip": 1.0}),
    ],
    ids=str,
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    pytest.importorskip("badam")
    assert_alike(tiny(model_type, "badam", batch=1, seq_len=8, **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_half_precision_is_unscaled_whatever_the_optimizer_inside(producer: Callable[[Workload], Recording]) -> None:
    w = tiny("llama", "badam", dtype="fp16", amp="fp16", loop="plain", clip=None, optimizer="adamw_torch_fused")
    with pytest.raises((InvalidWorkload, RunFailed), match="unscale"):
        producer(w)
