"""LLaMA Pro: copies of layers that train, behind those that they copy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimate, estimating
from memcalc.errors import InvalidWorkload
from memcalc.methods.llama_pro import LlamaPro
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 176 + 2 * 64  # of the tiny llama


def test_the_papers_model_has_eight_copies_among_forty_layers() -> None:
    assert LlamaPro().deeper(32) == 40
    assert sorted(LlamaPro().copied(40)) == [4, 9, 14, 19, 24, 29, 34, 39]
    assert LlamaPro().stack(32)[:11] == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8]
    footprint = estimate("llama-2-7b", "llama_pro", seq_len=16)
    assert footprint.trainable_params == 8 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert footprint.total_params == 6_738_415_616 + footprint.trainable_params


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_copies_alone_train(blocks: int) -> None:
    recording = estimating.record(tiny("llama", "llama_pro", new_blocks=blocks))
    plain = estimating.record(tiny("llama", "full"))
    assert recording.trainable_params == blocks * _LAYER
    assert recording.total_params == plain.total_params + blocks * _LAYER


def test_what_the_method_adds_is_no_weight_of_the_base() -> None:
    w = tiny("llama", "llama_pro", mode="inference")
    weights = [_adapter_bytes(producer(w)) for producer in (estimated, traced)]
    assert weights == [3 * _LAYER * 2] * 2


def _adapter_bytes(recording: Recording) -> int:
    timeline = recording.timeline
    return sum(nbytes for nbytes, kind in zip(timeline.nbytes, timeline.categories, strict=True) if kind == "adapter")


@pytest.mark.parametrize("model_type", ["llama", "opt", "gemma2"])
def test_a_new_copy_changes_nothing(model_type: str) -> None:
    w = tiny(model_type, "llama_pro", mode="inference", dtype="fp32")
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    path = estimating.family_of(w)[0].LAYERS
    layers = model.get_submodule(path)
    assert [layer in layers[:index] for index, layer in enumerate(layers)] == [False] * 6
    ids = torch.arange(10).view(2, 5)
    grown = model(input_ids=ids, use_cache=False).logits
    kept = torch.nn.ModuleList(layer for index, layer in enumerate(layers) if index % 2 == 0)
    model.get_submodule(path.rpartition(".")[0]).register_module(path.rpartition(".")[2], kept)
    model.config.num_hidden_layers = 3
    torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, grown)


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "new_blocks": 1},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"mode": "inference", "load": "device-map"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "llama_pro", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_blocks": 2}, "--new-blocks 2 does not divide the 3 layers"),
        ({"quant": "nf4"}, "--quant nf4 freezes the base, .* it cannot go with --method llama_pro"),
    ],
)
def test_what_cannot_be_is_refused(
    producer: Callable[[Workload], Recording], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny("llama", "llama_pro", **options))
