"""(IA)³: vectors behind keys and values, and before the MLP's last layer."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, RunFailed
from memcalc.importers import peft
from memcalc.importers.peft import FromConfig
from memcalc.methods.ia3 import Ia3
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import config, tiny, written


def test_outputs_are_scaled_and_the_inputs_of_feedforward_modules() -> None:
    """Per layer a fused output of 3 * 2048, and the MLP's inner width of 4 * 2048."""
    assert estimating.record(Workload.of("1.3b", "ia3", seq_len=16)).trainable_params == 24 * (3 + 4) * 2048


@pytest.mark.parametrize("model_type", written())
def test_the_targets_are_pefts_where_it_has_any(model_type: str) -> None:
    from peft.utils import constants

    name = config(model_type)["model_type"]
    targets = Ia3().default_targets(name)
    real = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(name, list(targets))
    inputs = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(name, list(targets[-1:]))
    assert (list(targets), list(targets[-1:])) == (real, inputs)


@pytest.mark.parametrize("model_type", ["phi3", "starcoder2"])
def test_a_family_without_a_row_of_pefts_is_given_targets_of_both_kinds(model_type: str) -> None:
    assert_alike(tiny(model_type, "ia3", seq_len=8))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "target": "all-linear"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "ia3", **options))


@pytest.mark.parametrize("modules", ["down_proj", "layers.1.mlp.down_proj", "none"])
def test_feedforward_modules_are_those_that_are_named(modules: str) -> None:
    """One layer's alone makes it unlike the others."""
    w = tiny("llama", "ia3", feedforward_modules=modules, config_changes={"num_hidden_layers": 6})
    assert_alike(w)
    inputs = {"down_proj": 6, "none": 0}.get(modules, 1)
    assert estimated(w).trainable_params == 6 * (2 * 32 + 64) + inputs * (176 - 64)


def test_a_feedforward_module_that_is_no_target_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--feedforward-modules 'down_proj' is no item of --target"):
        tiny("llama", "ia3", target="k_proj", feedforward_modules="down_proj")


@pytest.mark.parametrize(("value", "own"), [([], True), (None, True), (".*down_proj", False)])
def test_a_pattern_of_feedforward_modules_is_left_to_peft(value: Any, own: bool) -> None:
    given = {"peft_type": "IA3", "target_modules": ["down_proj"], "feedforward_modules": value, "fan_in_fan_out": True}
    w = peft.workload(tiny("llama").model, given, seq_len=8)
    assert isinstance(w.method, Ia3 if own else FromConfig)
    assert traced(w).trainable_params == 3 * (64 if value == [] else 176)
    if own:
        assert estimated(w).trainable_params == traced(w).trainable_params


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "attention"), [("llama", "sdpa"), ("llama", "eager"), ("bloom", "eager")])
def test_outputs_that_it_leaves_in_fp32_meet_no_half_ones_in_attention(
    producer: Callable[[Workload], Recording], model_type: str, attention: str
) -> None:
    """Over a packed base without autocast peft computes in fp32 and stays there: keys, but not queries."""
    w = tiny(model_type, "ia3", quant="nf4", kbit_prepare="none", attention=attention)
    with pytest.raises((InvalidWorkload, RunFailed), match="type"):
        producer(w)
