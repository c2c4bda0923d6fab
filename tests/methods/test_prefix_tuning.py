"""Prefix tuning and P-Tuning v2: what trains, what is saved, what they cannot go with, and their streams."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.importers import peft
from memcalc.methods.prefix_tuning import PrefixTuning
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import config, tiny

LAYERS, KEYS = 3, 2 * 16  # of tests/tiny.py: heads of keys * head_dim


def test_without_the_projection_keys_and_values_themselves_train() -> None:
    recording = estimating.record(tiny("llama", "p_tuning_v2", virtual_tokens=7))
    assert recording.trainable_params == 2 * LAYERS * KEYS * 7
    assert recording.checkpoint_bytes == 4 * recording.trainable_params


def test_with_it_what_makes_them_trains_and_they_alone_are_saved() -> None:
    recording = estimating.record(tiny("llama", "prefix_tuning", virtual_tokens=7, encoder_hidden_size=10))
    assert recording.trainable_params == KEYS * 7 + (KEYS + 1) * 10 + (10 + 1) * 2 * LAYERS * KEYS
    assert recording.checkpoint_bytes == 4 * 2 * LAYERS * KEYS * 7


def test_in_use_the_saved_prefix_is_there_without_what_made_it() -> None:
    recording = estimating.record(tiny("llama", "prefix_tuning", virtual_tokens=7, mode="inference"))
    assert recording.trainable_params == 2 * LAYERS * KEYS * 7


def test_checkpointing_is_refused_and_a_quantized_base_does_not_ask_for_it() -> None:
    with pytest.raises(InvalidWorkload, match="--checkpointing cannot go with --method p_tuning_v2: peft refuses it"):
        tiny("llama", "p_tuning_v2", checkpointing=True)
    assert tiny("llama", "lora", quant="nf4").checkpointing
    assert not tiny("llama", "prefix_tuning", quant="nf4").checkpointing
    described = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}
    assert not peft.workload("llama-3.2-1b", described, quant="nf4").checkpointing
    with pytest.raises(InvalidWorkload, match="--checkpointing cannot go with --method p_tuning_v2"):
        peft.workload("llama-3.2-1b", described, checkpointing=True)


def test_virtual_tokens_take_learned_positions() -> None:
    learned = config("gpt2")["n_positions"]
    estimating.record(tiny("gpt2", "p_tuning_v2", virtual_tokens=6, seq_len=learned - 6))
    with pytest.raises(InvalidWorkload, match="--seq-len 251 and the 6 virtual tokens before it are longer"):
        estimating.record(tiny("gpt2", "p_tuning_v2", virtual_tokens=6, seq_len=learned - 5))


def test_heads_that_peft_does_not_make_are_refused() -> None:
    with pytest.raises(InvalidWorkload, match="prefix has 4 heads of 16 here, and the model's keys 1 of 16"):
        estimating.record(tiny("falcon", "p_tuning_v2"))


def test_keys_of_another_dtype_than_the_queries_are_refused_where_the_library_refuses_them() -> None:
    with pytest.raises(InvalidWorkload, match="--attention flash takes keys in the queries' dtype"):
        estimating.record(tiny("gpt2", "p_tuning_v2", dtype="fp32", amp="bf16", attention="flash"))


def test_each_name_says_whether_there_is_a_projection() -> None:
    with pytest.raises(InvalidWorkload, match="--method prefix_tuning means --prefix-projection True"):
        Workload.of("llama-3.2-1b", "prefix_tuning", prefix_projection=False)
    saved = {
        "peft_type": "PREFIX_TUNING", "num_virtual_tokens": 9, "token_dim": 32, "num_layers": 3,
        "num_attention_heads": 2, "num_transformer_submodules": 1, "encoder_hidden_size": 32, "init_weights": "zero",
        "modules_to_save": None,
    }  # fmt: skip
    assert peft.method_of({**saved, "prefix_projection": False}) == (
        "p_tuning_v2",
        PrefixTuning(virtual_tokens=9, encoder_hidden_size=32),
    )
    assert peft.method_of({**saved, "prefix_projection": True}) == (
        "prefix_tuning",
        PrefixTuning(virtual_tokens=9, prefix_projection=True, encoder_hidden_size=32),
    )
    assert peft.workload("llama-3.2-1b", saved, "prefix_tuning").method_name == "p_tuning_v2"


COMMON: tuple[dict[str, Any], ...] = (
    {"padded": True, "batch": 1, "loop": "plain", "use_cache": True},
    {"dtype": "fp32", "amp": "bf16", "padded": True, "grad_accum": 2},
    {"mode": "inference", "padded": True},
    {"quant": "nf4", "amp": "bf16"},
)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize("options", COMMON, ids=lambda options: " ".join(map(str, options)))
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    name = "p_tuning_v2" if options.get("batch") else "prefix_tuning"
    assert_alike(tiny(model_type, name, **options))


@pytest.mark.parametrize(
    ("model_type", "changes", "options"),
    [
        ("gemma2", {}, {"padded": True}),  # whose window is shorter than the prefix
        ("gemma2", {}, {"padded": True, "attention": "flash"}),
        ("gemma2", {}, {"virtual_tokens": 3, "keep_logits": "step"}),
        ("mistral", {"sliding_window": 30}, {"padded": True, "attention": "flash"}),
        ("gpt_bigcode", {"multi_query": False}, {"padded": True, "attention": "flash", "batch": 1}),
        ("falcon", {"multi_query": False, "alibi": True}, {"padded": True}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, {}),
        ("llama", {}, {"seq_len": 1, "padded": True, "attention": "flash"}),
        ("llama", {}, {"device": "cpu", "dtype": "fp32", "padded": True}),
        ("qwen3", {}, {"gpu": "h100-80gb"}),
    ],
)
def test_its_stream_is_traces_where_keys_are_kept_or_met_in_another_way(
    model_type: str, changes: dict[str, object], options: dict[str, object]
) -> None:
    assert_alike(tiny(model_type, "p_tuning_v2", config_changes=changes, **options))
