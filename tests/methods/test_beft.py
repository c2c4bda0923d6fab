"""BEFT: a bias behind value projections."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.methods.beft import Beft
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny, written


def test_a_bias_of_the_outputs_width_trains() -> None:
    assert estimating.record(Workload.of("1.3b", "beft", seq_len=16)).trainable_params == 24 * 3 * 2048


@pytest.mark.parametrize("model_type", written())
def test_the_defaults_are_pefts_where_it_has_any(model_type: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING as PEFTS

    mine = list(Beft().default_targets(model_type))
    assert mine
    assert mine == PEFTS.get(model_type, mine)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear"},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True},
        {"batch": 1, "mode": "inference"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "beft", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_conv1d_is_refused_as_peft_refuses_it(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match=r"peft refuses this: .*Conv1D"):
        producer(tiny("gpt2", "beft"))
