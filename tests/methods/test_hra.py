"""HRA: a weight that is multiplied anew in every forward."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_a_vector_of_the_inputs_width_trains_for_each_reflection() -> None:
    assert estimating.record(Workload.of("1.3b", "hra", seq_len=16, rank=4)).trainable_params == 24 * 4 * 2048


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "rank": 3, "target": "all-linear"},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "rank": 2},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "rank": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all", "rank": 1},
        {"batch": 1, "mode": "inference", "rank": 2},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "hra", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_conv1d_is_refused_as_peft_refuses_it(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match=r"peft refuses this: .*Conv1D"):
        producer(tiny("gpt2", "hra"))


def test_what_cannot_be_and_what_is_not_written_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="a packed one"):
        estimating.record(tiny("llama", "hra", quant="nf4"))
    with pytest.raises(NotModelled, match="--apply-gs: memcalc trace runs it"):
        estimating.record(tiny("llama", "hra", apply_gs=True))
