"""LoftQ: what loading makes of each target's weight, which is quantized and dequantized again."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.methods.lora import Lora
from memcalc.recording import Recording
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import PRODUCERS, estimated, traced
from tests.tiny import tiny

_BOTH = pytest.mark.parametrize("producer", PRODUCERS.values(), ids=PRODUCERS)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"target": "all-linear", "checkpointing": True},
        {"loftq_iter": 3, "amp": "bf16"},
        {"dtype": "fp32", "loftq_iter": 2, "use_dora": True},
        {"autocast_adapter_dtype": False, "mode": "inference", "load": "device-map"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "loftq", **options))


def test_a_square_conv1d_fits() -> None:
    assert_alike(tiny("gpt2", "loftq", target="attn.c_proj"))


@_BOTH
def test_every_round_empties_the_cache(producer: Callable[[Workload], Recording]) -> None:
    w = tiny("llama", "loftq", target="o_proj", loftq_iter=2)
    assert _emptied(producer(w).timeline) == 3 * 2
    assert [mark.at for mark in estimated(w).timeline.marks] == [mark.at for mark in traced(w).timeline.marks]


def _emptied(timeline: Timeline) -> int:
    return sum(mark.kind == "empty_cache" for mark in timeline.marks)


@_BOTH
@pytest.mark.parametrize(
    ("model_type", "options", "match"),
    [
        ("llama", {"quant": "nf4"}, "--init-lora-weights loftq cannot go with --quant"),
        ("llama", {"device": "cpu", "dtype": "fp32"}, "--init-lora-weights loftq cannot go with --device cpu"),
    ],
)
def test_what_cannot_be_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidWorkload, match=match):
        producer(tiny(model_type, "loftq", **options))


def test_a_conv1d_that_is_not_square_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="A and B do not fit it"):
        estimated(tiny("gpt2", "loftq"))


@_BOTH
def test_eight_bits_are_left_to_profile(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(NotModelled, match="memcalc profile runs it"):
        producer(tiny("llama", "loftq", loftq_bits=8))
    with pytest.raises(InvalidWorkload, match="4 or 8 bits"):
        tiny("llama", "loftq", loftq_bits=3)


def test_a_peft_config_says_how_often() -> None:
    config = {
        "peft_type": "LORA", "init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 5},
    }  # fmt: skip
    w = peft.workload("1.3b", config)
    assert (w.method_name, w.method) == ("loftq", Lora(init_lora_weights="loftq", loftq_iter=5))
    assert (w.method.peft_config() or {})["loftq_config"] == config["loftq_config"]
    assert "loftq_config" not in (Lora().peft_config() or {})


def test_a_step_is_that_of_lora() -> None:
    after_loading = [
        [phase.allocated_peak for phase in estimating.estimate(tiny("llama", method, target="q_proj")).phases[1:]]
        for method in ("pissa", "loftq")
    ]
    assert after_loading[0] == after_loading[1]
