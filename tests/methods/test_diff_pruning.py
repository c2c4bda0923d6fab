"""Diff pruning: a masked difference of every weight, and the masks' penalty in the loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimate, estimating
from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_LINEARS = 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 176)  # of the tiny llama, without the head


def test_each_weight_has_a_difference_and_a_mask() -> None:
    assert estimating.record(tiny("llama", "diff_pruning")).trainable_params == 2 * _LINEARS
    biased = estimating.record(tiny("gpt2", "diff_pruning", target="c_proj"))
    assert biased.trainable_params == 2 * 3 * (64 * 64 + 64 + 256 * 64 + 64)
    grouped = estimating.record(tiny("gpt2", "diff_pruning", target="c_proj", structured=True))
    assert grouped.trainable_params == biased.trainable_params + 3 * 2 * 2


def test_training_needs_more_than_that_of_all_parameters() -> None:
    for options in ({}, {"checkpointing": True}):
        sparse, full = (estimate("1.3b", method, seq_len=64, **options).at_peak for method in ("diff_pruning", "full"))
        assert sum((sparse or {}).values()) > 2 * sum((full or {}).values()) > 0


def _model(**options: Any) -> Any:
    w = tiny("llama", "diff_pruning", dtype="fp32", target="q_proj", **options)
    return wrap(build(w, "cpu"), w, "cpu")


def test_a_difference_acts_as_far_as_its_mask_is_open() -> None:
    layer = _model(mode="inference").model.layers[0].self_attn.q_proj
    diff, x = layer.diffs.weight, torch.randn(2, 5, 64)
    torch.testing.assert_close(layer(x), layer.base_layer(x))
    torch.nn.init.ones_(diff.delta)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x.sum(-1, keepdim=True))
    torch.nn.init.constant_(diff.log_alpha, -5.0)
    torch.testing.assert_close(layer(x), layer.base_layer(x))


def test_masks_are_drawn_anew_in_training() -> None:
    diff = _model().model.layers[0].self_attn.q_proj.diffs.weight
    torch.nn.init.zeros_(diff.log_alpha)
    first, second = diff.mask().detach(), diff.mask().detach()
    assert not torch.equal(first, second)
    assert {0.0, 1.0} <= set(first.flatten().tolist())
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0


def test_a_closed_mask_of_the_matrix_closes_all_of_it() -> None:
    diff = _model(structured=True).model.layers[0].self_attn.q_proj.diffs.weight
    torch.nn.init.constant_(diff.group_log_alpha, 50.0)
    assert diff.mask().mean() > 0.9
    assert diff.expected() > 4000
    torch.nn.init.constant_(diff.group_log_alpha, -50.0)
    assert diff.mask().abs().max() == 0
    assert diff.expected() < 1


def test_the_loss_pays_for_what_is_expected_to_differ() -> None:
    model = _model()
    ids = torch.arange(10).view(2, 5)
    torch.manual_seed(0)
    loss = model(input_ids=ids, labels=ids).loss
    for layer in model.model.layers:
        torch.nn.init.constant_(layer.self_attn.q_proj.diffs.weight.log_alpha, -50.0)
    unpaid = model(input_ids=ids, labels=ids).loss
    expected = 3 * 64 * 64 * torch.sigmoid(torch.tensor(5.0)) * 1.25e-7
    torch.testing.assert_close(loss - unpaid, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "autocast_adapter_dtype": False},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "grad_accum": 2},
        {"dtype": "fp32", "amp": "bf16", "target": "down_proj,c_proj"},
        {"structured": True, "amp": "bf16", "checkpointing": True},
        {"structured": True, "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "diff_pruning", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_a_packed_weight_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match=r"--method diff_pruning adds to the weights themselves: .* with --quant"):
        producer(tiny("llama", "diff_pruning", quant="nf4"))
