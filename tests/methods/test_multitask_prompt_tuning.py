"""Multitask prompt tuning: what trains and is saved, in training and in use, and its stream."""

import pytest

from memcalc import estimating
from memcalc.importers import peft
from memcalc.methods.multitask_prompt_tuning import MultitaskPromptTuning
from memcalc.recording import footprint_of
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_shared_tokens_and_each_tasks_factors_train_and_are_saved(mode: str) -> None:
    w = tiny("llama", "multitask_prompt_tuning", virtual_tokens=7, num_tasks=3, num_ranks=2, mode=mode)
    recording = estimating.record(w)
    assert recording.trainable_params == 7 * 64 + 3 * 2 * (7 + 64)
    assert recording.checkpoint_bytes == 4 * recording.trainable_params


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    name, method = peft.method_of(
        {
            "peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 9, "token_dim": 64, "num_layers": 3,
            "num_attention_heads": 4, "num_transformer_submodules": 1, "num_ranks": 2, "num_tasks": 5,
            "prompt_tuning_init": "EXACT_SOURCE_TASK", "prompt_tuning_init_state_dict_path": "source.safetensors",
            "prompt_tuning_init_task": 3, "modules_to_save": None,
        }
    )  # fmt: skip
    assert (name, method) == ("multitask_prompt_tuning", MultitaskPromptTuning(9, num_tasks=5, num_ranks=2))


def test_three_layers_tell_the_peak_of_nine() -> None:
    w = tiny("llama", "multitask_prompt_tuning", config_changes={"num_hidden_layers": 9})
    assert estimating.peak_live(w) == footprint_of(w, estimating.record(w), "estimate").peak_live


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"padded": True, "batch": 1, "loop": "plain", "use_cache": True, "num_tasks": 3},
        {"checkpointing": True, "padded": True, "grad_accum": 2},
        {"checkpointing": True, "reentrant": True, "dtype": "fp32", "amp": "bf16", "num_ranks": 2},
        {"mode": "inference", "quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "multitask_prompt_tuning", **options))
