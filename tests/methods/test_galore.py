"""GaLore: states of low rank, the decomposition that finds it, and steps inside of backward."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload
from memcalc.estimating import peak_live
from memcalc.recording import Recording, footprint_of
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_LAYERWISE = {"optimizer": "galore_adamw_layerwise"}


def _states(timeline: Timeline, module: str) -> int:
    """Bytes that are kept for a module when the measured step's backward begins."""
    backward = next(mark.at for mark in timeline.marks if mark.name == "backward")
    alive = [row for row in timeline.alive_at(backward) if timeline.categories[row] == "optimizer_states"]
    return sum(timeline.nbytes[row] for row in alive if timeline.labels[row][0] == module)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_projection_and_two_moments_of_low_rank_are_kept(dtype: str) -> None:
    """(176, 64): P (8, 64), moments (176, 8); over fp32 all 64 vectors of 64 stay."""
    timeline = estimating.record(tiny("llama", "galore", rank=8, dtype=dtype)).timeline
    kept = 8 * 64 * 2 if dtype == "bf16" else 64 * 64 * 4
    assert _states(timeline, "model.layers.0.mlp.up_proj") == kept + 2 * 176 * 8 * (2 if dtype == "bf16" else 4)
    assert _states(timeline, "model.norm") == 2 * 64 * (2 if dtype == "bf16" else 4)


@pytest.mark.parametrize("history", ["none", "same", "same,same,8"])
def test_the_measured_step_finds_the_projection_anew(history: str) -> None:
    timeline = estimating.record(tiny("llama", "galore", history=history)).timeline
    optimizer = next(mark.at for mark in timeline.marks if mark.name == "optimizer")
    ops = [timeline.labels[row][1] for row in timeline.events[optimizer:] if row >= 0]
    assert ops.count("svd") == 3 * 7 * 3


@pytest.mark.parametrize("options", [{"rank": 8}, {"rank": 8, "dtype": "fp32", **_LAYERWISE}], ids=str)
def test_few_layers_stand_for_many(options: dict[str, Any]) -> None:
    w = tiny("llama", "galore", config_changes={"num_hidden_layers": 6}, **options)
    mine = estimated(w)
    difference = first_difference(mine.timeline, traced(w).timeline, ("estimate", "trace"))
    assert difference is None, difference
    assert footprint_of(w, mine, "estimate").peak_live == peak_live(w)


@pytest.mark.parametrize("options", [{}, _LAYERWISE], ids=str)
def test_what_a_block_is_is_traces(options: dict[str, Any]) -> None:
    w = tiny("llama", "galore", rank=8, **options)
    mine, real = footprint_of(w, estimated(w), "estimate"), footprint_of(w, traced(w), "trace")
    assert mine.at_peak == real.at_peak
    assert mine.phases == real.phases


@pytest.mark.parametrize("producer", [estimated, traced])
def test_conv1d_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match="is a Conv1D"):
        producer(tiny("gpt2", "galore"))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bloom", {"checkpointing": True, "target": "query_key_value"}),
        ("opt", {"checkpointing": True, "reentrant": True, "history": "none"}),
        ("qwen2", {"dtype": "fp32", "amp": "fp16", "grad_accum": 2, "history": "8,empty,same"}),
        ("llama", {"loop": "plain", "zero_grad": "zero"}),
        ("bloom", {"checkpointing": True, "reentrant": True, "dtype": "fp32", "amp": "bf16", **_LAYERWISE}),
        ("bloom", {"device": "cpu", "dtype": "fp32", **_LAYERWISE}),
        ("opt", {"loop": "plain", "clip": 1.0, **_LAYERWISE}),
    ],
    ids=str,
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "galore", batch=1, seq_len=8, rank=8, **options))


def test_what_is_only_used_has_no_gradients_to_project() -> None:
    assert_alike(tiny("gpt2", "galore", mode="inference"))
