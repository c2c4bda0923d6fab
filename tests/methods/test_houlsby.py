"""Houlsby adapters: two bottlenecks in each layer, by modules of our own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny, written

_TWO_LAYERS = {"num_hidden_layers": 2, "n_layer": 2}


@pytest.mark.parametrize(
    ("options", "width"),
    [({}, 4), ({"reduction_factor": 2.5}, 25), ({"reduction_factor": 100}, 1), ({"bottleneck": 7}, 7)],
)
def test_an_adapter_trains_two_matrices_and_their_biases(options: dict[str, Any], width: int) -> None:
    per_adapter = 2 * 64 * width + width + 64
    assert estimating.record(tiny("llama", "houlsby", **options)).trainable_params == 3 * 2 * per_adapter


@pytest.mark.parametrize("model_type", written())
def test_each_layer_has_two_places(model_type: str) -> None:
    w = tiny(model_type, "houlsby", history="none")
    _, m, _ = estimating.write(w, *estimating.family_of(w))
    assert len(m.targets) == 2 * 3


def test_the_papers_own_trains_norms_too() -> None:
    alone = estimating.record(tiny("llama", "houlsby")).trainable_params
    assert estimating.record(tiny("llama", "houlsby", train_norms=True)).trainable_params == alone + 3 * 2 * 64


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "train_norms": True},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "dtype": "fp16"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "non_linearity": "relu"},
        {"amp": "bf16", "checkpointing": True, "autocast_adapter_dtype": False},
        {"batch": 1, "mode": "inference"},
        {"quant": "nf4", "train_norms": True},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "houlsby", config_changes=_TWO_LAYERS, **options))


def test_an_adapter_adds_to_its_layers_output_and_does_nearly_nothing_at_first() -> None:
    w = tiny("gpt2", "houlsby", dtype="fp32")
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    layer, x = model.transformer.h[0].attn.c_proj, torch.randn(2, 5, 64)
    h, adapter = layer.base_layer(x), layer.adapter
    torch.testing.assert_close(layer(x), h + adapter.up(torch.nn.functional.silu(adapter.down(h))))
    torch.testing.assert_close(layer(x), h, atol=1e-2, rtol=0)


def test_nothing_below_the_first_adapter_is_kept() -> None:
    timeline = estimating.record(tiny("llama", "houlsby", history="none", target="layers.2.mlp.down_proj")).timeline
    backward = next(mark.at for mark in timeline.marks if mark.name == "backward")
    alive = [row for row in timeline.alive_at(backward) if timeline.categories[row] == "activations"]
    inside = {timeline.labels[row][0] for row in alive if ".layers." in timeline.labels[row][0]}
    assert inside == {"model.layers.2.mlp.down_proj"}


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottleneck": 4, "reduction_factor": 8}, "--bottleneck and --reduction-factor are one choice"),
        ({"mode": "inference", "merged": True}, "--merged needs adapters that can be merged into weights"),
        ({"target": "nowhere"}, "--target 'nowhere' matches no linear layer"),
    ],
)
def test_what_cannot_be_is_refused(
    producer: Callable[[Workload], Recording], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny("llama", "houlsby", **options))


def test_a_model_whose_sub_layers_end_elsewhere_must_be_told() -> None:
    from memcalc.anatomy import Anatomy
    from memcalc.methods.houlsby import Houlsby

    linears = ("layers.0.attn.o_proj", "layers.1.attn.o_proj", "layers.0.experts.w2")
    with pytest.raises(InvalidWorkload, match=r"0 linear layers of this moe model go by one of down_proj, .* --target"):
        Houlsby().targets(Anatomy("moe", (), linears, "lm_head", "layers", 2))
