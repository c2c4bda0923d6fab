"""FourierFT: a few numbers train, and the whole update is made anew in every forward."""

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


def test_the_entries_of_the_spectrum_train() -> None:
    assert estimating.record(Workload.of("1.3b", "fourierft", seq_len=16)).trainable_params == 24 * 1000


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "n_frequency": 100, "target": "all-linear"},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "kbit_prepare": "none", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "fourierft", **options))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_the_cpu_the_places_are_where_they_are(checkpointing: bool) -> None:
    assert_alike(tiny("llama", "fourierft", device="cpu", checkpointing=checkpointing))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_more_entries_than_the_weight_has_are_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny("llama", "fourierft", n_frequency=64 * 64 + 1))
