"""BitFit: which biases there are, and what their training costs."""

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


def test_each_bias_of_the_surveys_example_trains() -> None:
    """A layer of hidden size h: 3h + h + 4h + h in linear layers, 2h in norms; 4h more in two norms outside."""
    hidden, layers = 2048, 24
    recording = estimating.record(Workload.of("1.3b", "bitfit"))
    assert recording.trainable_params == 11 * hidden * layers + 2 * hidden
    assert recording.checkpoint_bytes == 2 * recording.total_params


def test_it_has_a_thousandth_of_full_fine_tunings_gradients_and_keeps_less_for_backward() -> None:
    bitfit, full = (estimating.record(Workload.of("bloom-560m", name, seq_len=64)) for name in ("bitfit", "full"))
    assert bitfit.total_params == full.total_params
    for category in ("gradients", "optimizer_states"):
        assert _bytes(bitfit.timeline, category) * 1000 < _bytes(full.timeline, category)
    kept, kept_by_full = (_bytes(one.timeline, "activations", _backward(one.timeline)) for one in (bitfit, full))
    assert 0 < kept < kept_by_full


def _backward(timeline: Timeline) -> int:
    return next(mark.at for mark in timeline.marks if mark.name == "backward")


def _bytes(timeline: Timeline, category: str, at: int | None = None) -> int:
    """Of all blocks of a category, or of those alive at an event."""
    rows = range(len(timeline.nbytes)) if at is None else timeline.alive_at(at)
    return sum(timeline.nbytes[row] for row in rows if timeline.categories[row] == category)


@pytest.mark.parametrize("producer", [estimated, traced])
def test_a_model_without_biases_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match="--method bitfit trains biases: this gemma2 model has none"):
        producer(tiny("gemma2", "bitfit"))


@pytest.mark.parametrize("model_type", ["qwen2", "bloom", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "padded": True, "grad_accum": 2},
        {"dtype": "fp32", "amp": "bf16", "checkpointing": True, "reentrant": True, "attention": "eager"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "bitfit", **options))
