"""Cartridge: what trains and is saved, what it cannot go with, and its stream."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.importers import peft
from memcalc.methods.cartridge import Cartridge
from tests.methods.likeness import assert_alike
from tests.tiny import tiny

LAYERS, KEYS = 3, 2 * 16  # of tests/tiny.py: heads of keys * head_dim


@pytest.mark.parametrize("frozen", [0, 3])
def test_all_tokens_but_the_first_train_and_all_are_saved(frozen: int) -> None:
    recording = estimating.record(tiny("llama", "cartridge", virtual_tokens=7, num_frozen_tokens=frozen))
    assert recording.trainable_params == 2 * LAYERS * KEYS * (7 - frozen)
    assert recording.checkpoint_bytes == 4 * 2 * LAYERS * KEYS * 7


def test_in_use_nothing_trains() -> None:
    assert estimating.record(tiny("llama", "cartridge", mode="inference")).trainable_params == 0


def test_what_it_cannot_go_with_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--checkpointing cannot go with --method cartridge: peft refuses it"):
        tiny("llama", "cartridge", checkpointing=True)
    with pytest.raises(InvalidWorkload, match="--num-frozen-tokens 4 leaves none of the --virtual-tokens to train"):
        tiny("llama", "cartridge", virtual_tokens=4, num_frozen_tokens=4)
    with pytest.raises(InvalidWorkload, match="prefix has 4 heads of 16 here, and the model's keys 1 of 16"):
        estimating.record(tiny("falcon", "cartridge"))


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    saved = {
        "peft_type": "CARTRIDGE", "num_virtual_tokens": 9, "num_frozen_tokens": 2, "token_dim": 32, "num_layers": 3,
        "num_attention_heads": 2, "num_transformer_submodules": 1, "modules_to_save": None,
    }  # fmt: skip
    assert peft.method_of(saved) == ("cartridge", Cartridge(virtual_tokens=9, num_frozen_tokens=2))


COMMON: tuple[dict[str, Any], ...] = (
    {"padded": True, "batch": 1, "loop": "plain", "use_cache": True},
    {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "num_frozen_tokens": 0},
    {"mode": "inference", "padded": True},
    {"quant": "nf4", "amp": "bf16", "num_frozen_tokens": 3},
)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom", "gemma2"])
@pytest.mark.parametrize("options", COMMON, ids=lambda options: " ".join(map(str, options)))
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "cartridge", **options))


def test_its_stream_is_traces_on_the_cpu() -> None:
    assert_alike(tiny("llama", "cartridge", device="cpu", dtype="fp32"))


def test_trl_asks_no_prompt_for_its_weight() -> None:
    """The encoder's is a property that puts its parts together."""
    assert_alike(tiny("llama", "cartridge", virtual_tokens=5, quant="nf4", kbit_prepare="trl", checkpointing=False))
