"""LLaMA-Adapter: what trains and in which dtype, which models and layers take it, and its stream."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.importers import peft
from memcalc.methods.adaption_prompt import AdaptionPrompt
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize(("layers", "adapted"), [(0, 3), (2, 2)])
def test_a_prompt_and_a_gate_of_each_adapted_layer_train_and_are_saved(layers: int, adapted: int) -> None:
    recording = estimating.record(tiny("llama", "adaption_prompt", adapter_len=7, adapter_layers=layers))
    assert recording.trainable_params == adapted * (7 * 64 + 1)
    assert recording.checkpoint_bytes == 2 * recording.trainable_params  # in the base's dtype


def test_over_a_packed_base_they_are_fp32() -> None:
    w = tiny("llama", "adaption_prompt", quant="nf4", kbit_prepare="none", dtype="fp16", amp="fp16")
    recording = estimating.record(w)
    assert recording.checkpoint_bytes == 4 * recording.trainable_params


@pytest.mark.parametrize(
    ("model_type", "changes", "options", "said"),
    [
        ("qwen2", {}, {}, "adaption prompts know gpt2, llama, mistral, not qwen2"),
        ("llama", {}, {"adapter_layers": 4}, "--adapter-layers 4 is more than the 3 layers that there are"),
        ("llama", {"head_dim": 24}, {}, "4 of 24 are not 64"),
    ],
)
def test_what_peft_cannot_do_is_refused(
    model_type: str, changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidWorkload, match=said):
        estimating.record(tiny(model_type, "adaption_prompt", config_changes=changes, **options))


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    saved = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": 2}
    for target in (None, "self_attn"):
        name, method = peft.method_of({**saved, "target_modules": target})
        assert (name, method) == ("adaption_prompt", AdaptionPrompt(4, 2))
    assert isinstance(peft.method_of({**saved, "target_modules": "mlp"})[1], peft.FromConfig)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"padded": True, "batch": 1, "loop": "plain", "use_cache": True, "adapter_layers": 2},
        {"checkpointing": True, "padded": True, "amp": "bf16"},
        {"checkpointing": True, "reentrant": True, "attention": "eager"},
        {"dtype": "fp32", "amp": "bf16", "padded": True, "grad_accum": 2},
        {"mode": "inference", "adapter_layers": 1},
        {"quant": "nf4", "amp": "bf16"},
        {"config_changes": {"num_hidden_layers": 6, "n_layer": 6, "num_key_value_heads": 4}},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "adaption_prompt", **options))
