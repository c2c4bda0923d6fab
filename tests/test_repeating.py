"""Few layers that stand for many: the stream of the whole model, and its peak, byte for byte."""

from dataclasses import replace
from typing import Any

import pytest

from memcalc import estimating, methods, repeating
from memcalc.allocator import live_levels
from memcalc.comparing import first_difference
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated
from tests.tiny import taken, tiny

CASES: list[dict[str, Any]] = [
    {"model": "llama-3.2-1b"},
    {"model": "llama-3.2-1b", "method": "full", "optimizer": "adamw_torch_forloop", "checkpointing": True},
    {"model": "llama-3.2-1b", "method": "full", "loop": "plain", "zero_grad": "zero", "grad_accum": 2},
    {"model": "qwen2.5-0.5b", "method": "qlora", "target": "all-linear", "batch": 3},
    {"model": "qwen2.5-0.5b", "method": "lora", "amp": "bf16", "loop": "plain", "lora_dropout": 0.1, "padded": True},
    {"model": "bloom-560m", "method": "full", "checkpointing": True, "reentrant": True, "grad_accum": 2},
    {"model": "bloom-560m", "method": "qlora", "kbit_prepare": "trl", "history": "160,empty"},
    {"model": "mistral-7b-v0.1", "load": "device-map", "attention": "eager", "seq_len": 64},
    {"model": "tinyllama-1.1b", "method": "full", "dtype": "fp32", "amp": "fp16", "optimizer": "sgd", "momentum": 0.9},
    {"model": "tinyllama-1.1b", "mode": "inference", "padded": True},
    {"model": "qwen2.5-0.5b", "method": "bitfit", "checkpointing": True},
    {"model": "bloom-560m", "method": "bitfit", "loop": "plain"},
    {"model": "qwen2.5-0.5b", "rank_pattern": "v_proj=2", "modules_to_save": "lm_head,input_layernorm"},
    {"model": "bloom-560m", "method": "ln_tuning", "checkpointing": True, "reentrant": True},
]
# Methods that do not the same to every layer.
UNLIKE: list[dict[str, Any]] = [
    {"method": "freeze"},
    {"method": "freeze", "layers": 5, "checkpointing": True, "extra": "norm,lm_head"},
    {"target": "layers.2.self_attn.q_proj"},
    {"layers_to_transform": "0,4"},
    {"rank_pattern": r"layers.[0-3].*q_proj=2", "modules_to_save": "lm_head"},
    {"modules_to_save": "1.input_layernorm"},
    {"target": "model.layers.3.mlp.up_proj,layers.5.self_attn.q_proj"},
]


@pytest.mark.parametrize("options", CASES, ids=lambda options: " ".join(map(str, options.values())))
def test_four_layers_repeated_are_the_stream_of_the_whole_model(options: dict[str, Any]) -> None:
    assert _repeated_as_written(Workload.of(**options))


@pytest.mark.parametrize("method", methods.names())
def test_any_method_is_repeated_as_it_is_written_or_written_out(method: str) -> None:
    w = tiny(taken("qwen2", method), method, config_changes={"num_hidden_layers": 6}, padded=True)
    if w.method.layers_alike:
        _repeated_as_written(w)


@pytest.mark.parametrize("method", methods.names())
def test_a_sweeps_peak_is_that_of_the_whole_model_under_any_method(method: str) -> None:
    changes = {"num_hidden_layers": 6, "attention_dropout": 0.1}
    w = tiny(taken("qwen2", method), method, config_changes=changes, grad_accum=2)
    assert estimating.peak_live(w) == live_levels(estimated(w).timeline).peak_live


def _repeated_as_written(w: Workload) -> bool:
    """Whether four layers of a workload can be repeated at all; where they can, asserts that nothing differs."""
    family, c = estimating.family_of(w)
    few, _, _ = estimating.write(w, family, replace(c, layers=repeating.DEPTH), depth=c.layers)
    whole = repeating.repeated(few, family.LAYERS, c.layers)
    if whole is None:
        return False
    written, _, _ = estimating.write(w, family, c)
    difference = first_difference(written, whole, ("written", "repeated"))
    assert difference is None, difference
    assert whole.labels == written.labels
    assert whole.categories == written.categories
    assert whole.marks == written.marks
    return True


@pytest.mark.parametrize("options", CASES, ids=lambda options: " ".join(map(str, options.values())))
def test_the_peak_of_three_layers_is_that_of_the_whole_model(options: dict[str, Any]) -> None:
    w = Workload.of(**options)
    family, c = estimating.family_of(w)
    written, _, _ = estimating.write(w, family, c)
    assert estimating.peak_live(w) == live_levels(written).peak_live


@pytest.mark.parametrize("options", UNLIKE, ids=lambda options: " ".join(map(str, options.values())))
def test_layers_that_a_method_treats_differently_are_all_written(options: dict[str, Any]) -> None:
    given = {**options}
    w = tiny("llama", given.pop("method", "lora"), config_changes={"num_hidden_layers": 6}, **given)
    assert_alike(w)
    assert estimating.peak_live(w) == live_levels(estimated(w).timeline).peak_live


def test_layers_that_differ_are_not_repeated() -> None:
    w = Workload.of("llama-3.2-1b", seq_len=64)
    family, c = estimating.family_of(w)
    few, _, _ = estimating.write(w, family, replace(c, layers=repeating.DEPTH), depth=c.layers)
    odd = next(row for row, (module, _) in enumerate(few.labels) if module.startswith(f"{family.LAYERS}.2."))
    few.nbytes[odd] += 512
    assert repeating.repeated(few, family.LAYERS, c.layers) is None


def test_a_first_layer_that_leaves_what_others_keep_stands_for_none() -> None:
    """Its probabilities, which are the second layer's to free, are kept for backward behind it: all layers tell."""
    w = tiny("bloom", "lora", target="dense", config_changes={"n_layer": 7})
    assert estimating.peak_live(w) == live_levels(estimated(w).timeline).peak_live
