"""DEFT: what is taken away from a weight's outputs, and what is put in its place."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled, RunFailed
from memcalc.importers import peft
from memcalc.methods.deft import Deft
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_it_trains_a_lora_or_the_half_of_its_outputs() -> None:
    both, one = (estimating.record(Workload.of("1.3b", "deft", seq_len=16, para=para)) for para in (False, True))
    assert both.trainable_params == 24 * 8 * (2048 + 6144)
    assert one.trainable_params == 24 * 8 * 6144


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "deft_dropout": 0.1, "alpha": 4},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "decomposition_method": "qr"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "bias": "all"},
        {"decomposition_method": "qr", "autocast_adapter_dtype": False, "target": "all-linear", "rank": 70},
        {"batch": 1, "mode": "inference", "init_weights": False},
        {"quant": "nf4", "para": True},
        {"quant": "int8", "dtype": "fp16", "init_weights": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    """A rank above a layer's outputs is their number."""
    assert_alike(tiny(model_type, "deft", **{"rank": 3, **options}))


def test_where_r_begins_as_what_is_taken_away_loading_needs_a_weight_in_fp32() -> None:
    changes = {"hidden_size": 1024, "num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
    computed, drawn = (
        estimating.estimate(tiny("llama", "deft", config_changes=changes, target="o_proj", init_weights=first))
        for first in (True, False)
    )
    extra = (computed.phases[0].allocated_peak or 0) - (drawn.phases[0].allocated_peak or 0)
    assert extra == pytest.approx(4 * 1024**2 + 8_519_680, rel=0.02)


def test_a_config_says_whether_r_is_drawn() -> None:
    w = peft.workload("1.3b", {"peft_type": "DEFT", "init_weights": False, "init_scale": 0.5})
    assert (w.method_name, w.method) == ("deft", Deft(init_weights=False, init_scale=0.5))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_a_packed_weight_that_r_begins_with_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match=r"which is packed|same reduction dim"):
        producer(tiny("llama", "deft", quant="nf4"))


def test_eight_bit_weights_are_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="8-bit"):
        estimated(tiny("llama", "deft", quant="int8"))
