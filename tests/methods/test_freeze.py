"""Freezing: which layers train, and that nothing is kept below them."""

from collections.abc import Callable

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_the_top_layers_of_the_surveys_example_train() -> None:
    """A layer of hidden size h: 12 h^2 and 9h biases in linear layers, 4h in two norms."""
    hidden = 2048
    per_layer = 12 * hidden**2 + 13 * hidden
    for layers in (1, 2, 24):
        recording = estimating.record(Workload.of("1.3b", "freeze", layers=layers, seq_len=16))
        assert recording.trainable_params == layers * per_layer


@pytest.mark.parametrize(
    ("extra", "more"), [("norm", 64), ("norm,lm_head", 64 + 211 * 64), ("model.embed_tokens", 211 * 64), ("layers", 0)]
)
def test_further_modules_train_by_name(extra: str, more: int) -> None:
    everything = {"layers": 3} if extra == "layers" else {}
    alone = estimating.record(tiny("llama", "freeze", **everything)).trainable_params
    assert estimating.record(tiny("llama", "freeze", extra=extra)).trainable_params == alone + more


def test_no_activation_of_a_frozen_layer_outlives_its_forward() -> None:
    timeline = estimating.record(tiny("llama", "freeze", layers=1, history="none")).timeline
    backward = next(mark.at for mark in timeline.marks if mark.name == "backward")
    assert not _activations(timeline, backward, "model.layers.0.", "model.layers.1.")
    assert _activations(timeline, backward, "model.layers.2.")


def _activations(timeline: Timeline, at: int, *modules: str) -> list[str]:
    alive = [row for row in timeline.alive_at(at) if timeline.categories[row] == "activations"]
    return [timeline.label(row) for row in alive if timeline.label(row).startswith(modules)]


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 4}, "--layers 4 is more than the 3 layers"),
        ({"extra": "nowhere"}, "--extra 'nowhere' matches no module .* this model has embed_tokens, layers, norm"),
    ],
)
def test_what_is_not_there_is_refused(
    producer: Callable[[Workload], Recording], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny("llama", "freeze", **options))


@pytest.mark.parametrize("model_type", ["llama", "bloom", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "options",
    [
        {"layers": 1, "checkpointing": True},
        {"layers": 1, "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"layers": 2, "dtype": "fp32", "amp": "bf16", "padded": True, "grad_accum": 2, "extra": "norm,ln_f"},
        {"layers": 2, "dtype": "fp32", "amp": "bf16", "checkpointing": True, "reentrant": True, "attention": "eager"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "freeze", **options))
