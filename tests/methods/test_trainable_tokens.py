"""Trainable tokens: rows of the embedding, and of a head that is tied to it."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_a_row_of_the_embedding_trains_for_each_token() -> None:
    recording = estimating.record(Workload.of("llama-3.2-3b", "trainable_tokens", token_indices="128000,128001"))
    assert recording.trainable_params == 2 * 3072
    assert recording.total_params == 3_212_755_968


def test_a_tied_heads_rows_are_saved_again() -> None:
    alone, tied = (
        estimating.record(tiny("llama", "trainable_tokens", config_changes={"tie_word_embeddings": tie}))
        for tie in (False, True)
    )
    assert tied.trainable_params == alone.trainable_params == 2 * 64
    assert tied.checkpoint_bytes == 2 * alone.checkpoint_bytes == 2 * 4 * 2 * 64


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom", "gemma"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "token_indices": "3,4,5"},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"device": "cpu", "checkpointing": True},
        {"quant": "nf4"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "trainable_tokens", **options))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "gemma"])
def test_trl_casts_them_back_with_their_embedding(model_type: str) -> None:
    assert_alike(tiny(model_type, "trainable_tokens", quant="nf4", kbit_prepare="trl", checkpointing=False))


def test_what_is_no_tokens_number_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--token-indices 'eos': each item is a token's number"):
        tiny("llama", "trainable_tokens", token_indices="eos")
    with pytest.raises(InvalidWorkload, match="--token-indices 211: the embedding has 211 rows"):
        estimating.record(tiny("llama", "trainable_tokens", token_indices="5,211"))


def test_tokens_of_another_module_are_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="memcalc trace runs other --target"):
        estimating.record(tiny("llama", "trainable_tokens", target="lm_head"))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_the_embedding_goes_by_its_name(producer: Callable[[Workload], Recording]) -> None:
    assert producer(tiny("bloom", "trainable_tokens", target="word_embeddings")).trainable_params == 2 * 64
