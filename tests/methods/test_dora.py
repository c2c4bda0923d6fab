"""DoRA: the norm of the adapted weight, made anew in each forward, in every precision and over a packed base."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True},
        {"dtype": "fp32", "amp": "bf16", "checkpointing": True, "reentrant": True},
        {"amp": "bf16", "loop": "plain", "padded": True},
        {"dtype": "fp16", "autocast_adapter_dtype": False},
        {"amp": "bf16", "autocast_adapter_dtype": False, "mode": "inference"},
        {"quant": "nf4", "double_quant": True},
        {"quant": "nf4", "amp": "bf16", "checkpointing": False, "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "dora", rank=4, **options))


@pytest.mark.parametrize("model_type", ["llama", "bloom"])
def test_a_dropout_multiplies_by_the_weight_once_more(model_type: str) -> None:
    assert_alike(tiny(model_type, "dora", lora_dropout=0.1, target="all-linear"))


def test_what_is_not_written_is_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="DoRA's dropout over Conv1D"):
        estimating.record(tiny("gpt2", "dora", lora_dropout=0.1))


def test_a_name_is_found_in_pefts_config_and_fixes_its_flag() -> None:
    for name, flag in (("dora", "use_dora"), ("rslora", "use_rslora")):
        workload = peft.workload("1.3b", {"peft_type": "LORA", flag: True})
        assert workload.method_name == name
        assert workload.method == tiny("llama", name).method
        with pytest.raises(InvalidWorkload, match=f"--method {name} means"):
            tiny("llama", name, **{flag: False})
