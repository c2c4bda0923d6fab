"""VB-LoRA: one bank of vectors for all layers."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_the_bank_is_counted_once_and_the_choices_per_piece() -> None:
    """A fused layer of 8 + 24 pieces, four of each, choose among 256 vectors."""
    recording = estimating.record(Workload.of("1.3b", "vblora", seq_len=16))
    assert recording.trainable_params == 256 * 256 + 24 * 4 * (8 + 24) * 256


@pytest.mark.parametrize(("vectors", "place"), [(255, 1), (256, 2), (40_000, 4)])
def test_a_checkpoint_of_mixtures_holds_places_and_all_weights_but_the_last(vectors: int, place: int) -> None:
    options = {"vector_length": 16, "num_vectors": vectors, "save_only_topk_weights": True, "topk": 2, "rank": 1}
    recording = estimating.record(tiny("llama", "vblora", **options, target="o_proj"))
    assert recording.checkpoint_bytes == 4 * 16 * vectors + 3 * 8 * (2 * place + 4)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "topk": 3, "vblora_dropout": 0.1},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all", "save_only_topk_weights": True},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "vblora", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_a_width_that_vectors_do_not_fill_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny("llama", "vblora", vector_length=24))


def test_more_vectors_than_the_bank_has_are_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--topk 5 is more than the bank has: --num-vectors 4"):
        tiny("llama", "vblora", topk=5, num_vectors=4)
