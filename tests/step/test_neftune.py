"""NEFTune: noise behind the embedding, as transformers' hook adds it."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from tests.methods.likeness import assert_alike
from tests.producers import traced
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("model_type", "method", "options"),
    [
        ("llama", "lora", {}),
        ("llama", "full", {"dtype": "fp32", "amp": "bf16"}),
        ("gemma", "lora", {"checkpointing": True}),
        ("qwen2", "qlora", {"reentrant": True}),
        ("opt", "trainable_tokens", {"checkpointing": True}),
        ("gpt2", "prompt_tuning", {"loop": "plain"}),
        ("bloom", "lora", {"padded": True, "grad_accum": 2, "loop": "plain"}),
    ],
)
def test_noise_is_what_transformers_hook_adds(model_type: str, method: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, method, neftune_alpha=5.0, **options))


def test_two_blocks_of_the_embeddings_size_are_born_with_the_noise() -> None:
    plain, noisy = (estimating.record(tiny("llama", "lora", neftune_alpha=alpha)).timeline for alpha in (None, 5.0))
    assert len(noisy.nbytes) - len(plain.nbytes) == 2 * 2  # of both steps
    drawn = [noisy.nbytes[row] for row, label in enumerate(noisy.labels) if label[1] == "zeros_like"]
    assert drawn == [2 * 24 * 64 * 2] * 2


def test_any_depth_has_one_embedding() -> None:
    deep = tiny("llama", "lora", neftune_alpha=5.0, checkpointing=True, config_changes={"num_hidden_layers": 7})
    assert estimating.peak_live(deep) == estimating.estimate(deep).peak_live


@pytest.mark.parametrize("tier", [estimating.record, traced])
def test_trainer_finds_no_embedding_under_the_prompts_of_a_model_without_a_part_named_model(tier: Any) -> None:
    with pytest.raises(InvalidWorkload, match="--neftune-alpha"):
        tier(tiny("gpt2", "prompt_tuning", neftune_alpha=5.0))
    tier(tiny("llama", "prompt_tuning", neftune_alpha=5.0))
