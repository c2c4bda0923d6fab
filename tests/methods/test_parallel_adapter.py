"""Parallel adapters: a bottleneck beside each feed-forward."""

from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.parallel_adapter import ParallelAdapter
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from tests.methods.likeness import assert_alike
from tests.tiny import tiny, written


@pytest.mark.parametrize("model_type", written())
def test_half_of_the_hidden_size_is_its_width(model_type: str) -> None:
    per_layer = 2 * 64 * 32 + 32 + 64
    assert estimating.record(tiny(model_type, "parallel_adapter")).trainable_params == 3 * per_layer


def test_it_adds_what_it_makes_of_the_feed_forwards_input() -> None:
    w = tiny("llama", "parallel_adapter", dtype="fp32", scaling=3.0)
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    block = model.model.layers[0].mlp
    x = torch.randn(2, 5, 64)
    plain = block.down_proj.base_layer(block.act_fn(block.gate_proj(x)) * block.up_proj(x))
    torch.testing.assert_close(block(x), plain + 3.0 * block.down_proj.adapter(x))
    assert not block.down_proj._seen


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2", "opt"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "reentrant": True},
        {"amp": "bf16", "non_linearity": "gelu", "loop": "plain"},
        {"quant": "nf4", "bottleneck": 3},
        {"dtype": "fp32", "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "parallel_adapter", **options))


def test_a_feed_forward_must_begin_somewhere() -> None:
    linears = ("layers.0.mlp.w1", "layers.0.mlp.fc2")
    with pytest.raises(InvalidWorkload, match=r"beside layers.0.mlp.fc2 stands none of gate_proj, "):
        ParallelAdapter().targets(Anatomy("odd", (), linears, "lm_head", "layers", 1))
    with pytest.raises(InvalidWorkload, match="--bottleneck and --reduction-factor are one choice"):
        tiny("llama", "parallel_adapter", bottleneck=4, reduction_factor=8)
