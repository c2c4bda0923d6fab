"""LoRA's further options: copies of whole modules, layers and ranks that differ."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import taken, tiny

_HIDDEN: Final = 2048
_WHOLE: Final = "lm_head,embed_tokens,wte,word_embeddings"


def test_some_layers_and_other_ranks_of_the_surveys_example_train() -> None:
    """Fused query, key and value: rank * (h + 3 h) in each adapted layer."""
    few = estimating.record(Workload.of("1.3b", "lora", layers_to_transform="0,5,23", seq_len=16))
    assert few.trainable_params == 3 * 8 * 4 * _HIDDEN
    low = estimating.record(Workload.of("1.3b", "lora", rank_pattern="query_key_value=2", seq_len=16))
    assert low.trainable_params == 24 * 2 * 4 * _HIDDEN
    one = estimating.record(Workload.of("1.3b", "lora", rank_pattern=r"h\.0\..*=2", seq_len=16))
    assert one.trainable_params == (23 * 8 + 2) * 4 * _HIDDEN


def test_a_copied_head_trains_whole_in_the_bases_dtype() -> None:
    plain, saved = (
        estimating.record(Workload.of("1.3b", "lora", seq_len=16, **more))
        for more in ({}, {"modules_to_save": "lm_head"})
    )
    head = 46_145 * _HIDDEN
    assert saved.trainable_params == plain.trainable_params + head
    assert saved.total_params == plain.total_params + head
    assert saved.checkpoint_bytes == plain.checkpoint_bytes + 2 * head


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": _WHOLE},
        {"modules_to_save": _WHOLE, "dtype": "fp32", "amp": "bf16", "checkpointing": True, "reentrant": True},
        {"modules_to_save": "norm,ln_f", "checkpointing": True, "loop": "plain"},
        {"layers_to_transform": "1", "rank_pattern": "q_proj=3,query_key_value=5,c_attn=2"},
        {"layers_to_transform": "2", "dtype": "fp32", "amp": "bf16", "padded": True},
        {"layers_to_transform": "1", "checkpointing": True, "reentrant": True, "loop": "plain"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "lora", **options))


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
@pytest.mark.parametrize("kbit_prepare", ["none", "peft", "trl"])
def test_its_stream_over_a_packed_base_is_traces(model_type: str, kbit_prepare: str) -> None:
    assert_alike(tiny(model_type, "qlora", modules_to_save=_WHOLE, kbit_prepare=kbit_prepare, layers_to_transform="0"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers_to_transform": "one"}, "--layers-to-transform 'one'"),
        ({"layers_to_transform": "1", "target": "all-linear"}, "cannot go with --target all-linear"),
        ({"rank_pattern": "q_proj"}, "--rank-pattern 'q_proj': each item is PATTERN=NUMBER"),
        ({"rank_pattern": "q_proj=0"}, "is above 0"),
        ({"rank_pattern": "(=2"}, "each item is PATTERN=NUMBER"),
        ({"alpha_pattern": {"q_proj": "much"}}, "--alpha-pattern 'q_proj=much'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        tiny("llama", "lora", **options)


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    "options", [{"layers_to_transform": "7"}, {"modules_to_save": "nowhere"}, {"modules_to_save": "proj"}]
)
def test_what_does_not_suit_the_model_is_refused_by_both(
    producer: Callable[[Workload], Recording], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidWorkload):
        producer(tiny("llama", "lora", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("lora", {"modules_to_save": "lm_head"}),
        ("lora", {"bias": "all"}),
        ("lora", {"autocast_adapter_dtype": False, "loop": "plain", "clip": 1.0}),
        ("lora", {"autocast_adapter_dtype": False, "loop": "plain", "optimizer": "sgd"}),
        ("ln_tuning", {}),
        ("adaption_prompt", {}),
    ],
    ids=str,
)
def test_half_gradients_that_a_scaler_must_unscale_are_refused(
    producer: Callable[[Workload], Recording], method: str, options: dict[str, Any]
) -> None:
    w = tiny(taken("qwen2", method), method, **{"dtype": "fp16", "amp": "fp16", **options})
    with pytest.raises(InvalidWorkload, match="GradScaler refuses to unscale fp16 gradients"):
        producer(w)


def test_a_fused_optimizer_unscales_half_gradients_itself() -> None:
    options = {"optimizer": "adamw_torch_fused", "loop": "plain", "clip": "none"}
    assert_alike(tiny("llama", "full", dtype="fp16", amp="fp16", **options))


def test_a_copy_that_is_not_written_is_left_to_trace() -> None:
    with pytest.raises(NotModelled, match=r"copy of the whole model\.layers\.0\.mlp"):
        estimating.record(tiny("llama", "lora", modules_to_save="mlp"))
    with pytest.raises(NotModelled, match="--bias all"):
        estimating.record(tiny("bloom", "lora", modules_to_save="ln_f", bias="all"))
    assert traced(tiny("llama", "lora", modules_to_save="mlp")).trainable_params
