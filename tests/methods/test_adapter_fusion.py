"""AdapterFusion: frozen adapters, and attention over them that trains."""

from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from tests.methods.likeness import assert_alike
from tests.tiny import tiny

_ADAPTER = 2 * 64 * 4 + 4 + 64


@pytest.mark.parametrize("adapters", [1, 3])
def test_the_fusion_alone_trains_and_the_adapters_are_counted(adapters: int) -> None:
    recording = estimating.record(tiny("llama", "adapter_fusion", adapters=adapters))
    base = estimating.record(tiny("llama", "full")).total_params
    assert recording.trainable_params == 3 * (3 * 64 * 64 + 2 * 64)
    assert recording.total_params == base + recording.trainable_params + 3 * adapters * _ADAPTER


def test_each_position_mixes_the_adapters_by_attention() -> None:
    w = tiny("llama", "adapter_fusion", adapters=2, dtype="fp32")
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    layer, x = model.model.layers[0].mlp.down_proj, torch.randn(2, 5, 176)
    h, fusion = layer.base_layer(x), layer.fusion
    for adapter in layer.adapters:
        torch.nn.init.normal_(adapter.up.weight)
    outputs = torch.stack([adapter(h) for adapter in layer.adapters])
    scores = (fusion.query(h) * fusion.key(outputs)).sum(-1, keepdim=True)
    expected = h + (scores.softmax(0) * fusion.value(outputs)).sum(0)
    torch.testing.assert_close(layer(x), expected)
    assert not any(parameter.requires_grad for parameter in layer.adapters.parameters())


@pytest.mark.parametrize("model_type", ["llama", "opt"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "optimizer": "adamw_torch"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"autocast_adapter_dtype": False, "adapters": 1, "grad_accum": 2},
        {"quant": "nf4", "non_linearity": "gelu"},
        {"dtype": "fp32", "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "adapter_fusion", **{"adapters": 3, **options}))


def test_the_bottlenecks_width_is_said_once() -> None:
    with pytest.raises(InvalidWorkload, match="--bottleneck and --reduction-factor are one choice"):
        tiny("llama", "adapter_fusion", bottleneck=4, reduction_factor=8)
