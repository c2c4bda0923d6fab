"""LISA: which layers train in which step, and for how long the optimizer keeps their states."""

from collections.abc import Callable

import pytest

from memcalc import estimating
from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.lisa import Lisa
from memcalc.recording import Recording
from memcalc.units import gib
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_EMBEDDING_NORM_HEAD = 211 * 64 + 64 + 211 * 64
_LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 176 + 2 * 64


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_so_many_layers_train_and_what_is_in_none(layers: int) -> None:
    trained = estimating.record(tiny("llama", "lisa", lisa_layers=layers)).trainable_params
    assert trained == _EMBEDDING_NORM_HEAD + layers * _LAYER


def test_each_layer_has_its_turn_the_top_ones_last() -> None:
    model = Anatomy("llama", ("e", "l.0.w", "l.1.w", "l.2.w", "l.3.w", "l.4.w"), (), "", "l", 5)
    drawn = [sorted(turn) for turn in Lisa(lisa_layers=2).turns(model)]
    assert drawn == [["e", "l.0.w", "l.1.w"], ["e", "l.1.w", "l.2.w"], ["e", "l.3.w", "l.4.w"]]
    dropped = [sorted(turn) for turn in Lisa(lisa_layers=2, lisa_states="dropped").turns(model)]
    assert dropped == drawn[1:]


@pytest.mark.parametrize(("states", "layers"), [("kept", 3), ("dropped", 1)])
def test_who_has_states_in_the_measured_step(states: str, layers: int) -> None:
    timeline = estimating.record(tiny("llama", "lisa", lisa_layers=1, lisa_states=states, dtype="fp32")).timeline
    backward = next(mark.at for mark in timeline.marks if mark.name == "backward")
    alive = [row for row in timeline.alive_at(backward) if timeline.categories[row] == "optimizer_states"]
    moments = sum(timeline.nbytes[row] for row in alive if timeline.labels[row][1] != "step")
    assert moments == 2 * 4 * (_EMBEDDING_NORM_HEAD + layers * _LAYER)


@pytest.mark.parametrize("history", ["none", "same"])
def test_whose_states_are_in_managed_memory(history: str) -> None:
    """Wide enough for that. Before the first turn no other layer has any."""
    wide = {"hidden_size": 320, "intermediate_size": 320}
    options = {"optimizer": "paged_adamw_32bit", "history": history, "lisa_layers": 1, "batch": 1, "seq_len": 8}
    w = tiny("llama", "lisa", config_changes=wide, **options)
    mine = estimated(w).warnings
    assert mine == traced(w).warnings
    assert (f"keeps {gib(8 * (2 * 320**2 + 3 * 320**2))}" in mine[0]) == (history == "none")


@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("producer", [estimated, traced])
def test_more_layers_than_there_are_are_refused(producer: Callable[[Workload], Recording], mode: str) -> None:
    with pytest.raises(InvalidWorkload, match="--lisa-layers 4 is more than the 3 layers"):
        producer(tiny("llama", "lisa", lisa_layers=4, mode=mode))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"lisa_layers": 1, "checkpointing": True}),
        ("bloom", {"lisa_layers": 1, "checkpointing": True, "reentrant": True, "lisa_states": "dropped"}),
        ("gpt2", {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "history": "8,empty,same"}),
        ("qwen2", {"loop": "plain", "zero_grad": "zero", "lisa_states": "dropped", "lisa_layers": 1}),
        ("opt", {"optimizer": "adamw_8bit", "lisa_states": "dropped", "history": "same,same"}),
        ("llama", {"optimizer": "adagrad", "dtype": "fp32", "amp": "fp16", "loop": "plain", "history": "none"}),
    ],
    ids=str,
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "lisa", batch=1, seq_len=8, **options))
