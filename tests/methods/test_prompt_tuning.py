"""Prompt tuning: what is put before each row, what trains, and what it cannot go with."""

from dataclasses import replace

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.importers import peft
from memcalc.methods.prompt_tuning import PromptTuning
from tests.methods.likeness import assert_alike
from tests.tiny import config, tiny


def test_virtual_tokens_train_in_fp32_and_are_what_is_saved() -> None:
    recording = estimating.record(tiny("llama", "prompt_tuning", virtual_tokens=7))
    assert recording.trainable_params == 7 * 64
    assert recording.checkpoint_bytes == 4 * 7 * 64


def test_virtual_tokens_come_on_top_of_the_sequence_and_take_learned_positions() -> None:
    learned = config("gpt2")["n_positions"]
    estimating.record(tiny("gpt2", "prompt_tuning", virtual_tokens=6, seq_len=learned - 6))
    with pytest.raises(
        InvalidWorkload, match=r"--seq-len 251 and the 6 virtual tokens before it are longer than the 256"
    ):
        estimating.record(tiny("gpt2", "prompt_tuning", virtual_tokens=6, seq_len=learned - 5))
    estimating.record(tiny("bloom", "prompt_tuning", virtual_tokens=6, seq_len=2 * learned))


def test_embeddings_of_another_width_are_refused() -> None:
    with pytest.raises(InvalidWorkload, match="embeddings"):
        estimating.record(tiny("opt", "prompt_tuning", config_changes={"word_embed_proj_dim": 32}))


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    name, method = peft.method_of(
        {
            "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 9, "token_dim": 64, "num_layers": 3,
            "num_attention_heads": 4, "num_transformer_submodules": 1, "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "Say:", "tokenizer_name_or_path": "gpt2", "modules_to_save": None,
        }
    )  # fmt: skip
    assert (name, method) == ("prompt_tuning", PromptTuning(virtual_tokens=9))


def test_it_trains_in_use_too_as_pefts_does() -> None:
    w = tiny("llama", "prompt_tuning", mode="inference")
    assert estimating.record(w).trainable_params == estimating.record(replace(w)).trainable_params == 20 * 64


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom", "gemma2", "falcon"])
@pytest.mark.parametrize(
    "options",
    [
        {"padded": True, "batch": 1, "loop": "plain", "use_cache": True},
        {"checkpointing": True, "padded": True},
        {"checkpointing": True, "reentrant": True, "attention": "eager"},
        {"dtype": "fp32", "amp": "bf16", "padded": True, "grad_accum": 2},
        {"amp": "bf16", "loop": "plain", "optimizer": "adamw_8bit"},
        {"mode": "inference", "padded": True},
        {"quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "prompt_tuning", **options))
