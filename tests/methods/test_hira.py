"""HiRA: the weight itself times a low-rank product, element by element."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_it_trains_as_many_as_a_lora_of_its_rank() -> None:
    assert estimating.record(Workload.of("1.3b", "hira", seq_len=16)).trainable_params == 24 * 32 * (2048 + 6144)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "hira_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "hira_dropout": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    """Over Conv1D the weight itself has a gradient, which nobody looks at."""
    assert_alike(tiny(model_type, "hira", **{"rank": 3, **options}))


def test_no_rate_of_a_dropout_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--hira-dropout must be"):
        tiny("llama", "hira", hira_dropout=1)
