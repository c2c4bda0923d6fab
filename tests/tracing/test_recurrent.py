"""Recurrent layers in a user's own step run in cuDNN, as far as its blocks are known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from memcalc.kernels import CUDNN_SPACES_LEFT_OUT, cudnn_rnn_weights
from memcalc.tracing.own_step import TracedStep

_WIDTH, _HIDDEN, _ROWS, _STEPS = 5, 7, 3, 11


def _traced(kind: Callable[..., nn.RNNBase], **options: Any) -> tuple[TracedStep, nn.RNNBase]:
    with TracedStep(gpu="rtx4090") as traced:
        layer = kind(_WIDTH, _HIDDEN, **options).to("cuda")
        x = torch.zeros(_STEPS, _ROWS, _WIDTH, device="cuda")
        layer(x)[0].sum().backward()
    return traced, layer


def _count(layer: nn.RNNBase, gates: int) -> int:
    return cudnn_rnn_weights(
        gates=gates,
        input_size=_WIDTH,
        hidden_size=_HIDDEN,
        layers=layer.num_layers,
        directions=1 + layer.bidirectional,
        projection=layer.proj_size,
    )


@pytest.mark.parametrize(
    ("kind", "gates", "options"),
    [
        (nn.LSTM, 4, {}),
        (nn.LSTM, 4, {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
        (nn.LSTM, 4, {"bias": False}),
        (nn.GRU, 3, {"num_layers": 2}),
        (nn.RNN, 1, {"bidirectional": True}),
        (nn.RNN, 1, {"nonlinearity": "relu"}),
    ],
    ids=str,
)
def test_weights_and_their_gradients_lie_in_one_block_each(
    kind: Callable[..., nn.RNNBase], gates: int, options: dict[str, Any]
) -> None:
    traced, layer = _traced(kind, **options)
    timeline, nbytes = traced.timeline, 4 * _count(layer, gates)
    alive = list(timeline.alive_at(len(timeline.events)))
    loaded = [row for row in alive if timeline.categories[row] == "weights"]
    parameters = [row for row in loaded if timeline.nbytes[row] != 4 * _STEPS * _ROWS * _WIDTH]
    gradients = [timeline.nbytes[row] for row in alive if timeline.categories[row] == "gradients"]
    assert [timeline.nbytes[row] for row in parameters] == [nbytes]
    if layer.bias:
        assert gradients == [nbytes]
    else:  # the block has biases that the layer has not
        assert gradients == [4 * parameter.numel() for parameter in layer.parameters()]
        assert nbytes in timeline.nbytes[parameters[0] + 1 :]
    assert CUDNN_SPACES_LEFT_OUT in traced.footprint.warnings


def test_nothing_grows_with_the_number_of_steps_but_what_a_layer_takes_and_gives() -> None:
    traced, _ = _traced(nn.LSTM, num_layers=2)
    per_step = [n for n in traced.timeline.nbytes if n % (4 * _STEPS * _ROWS) == 0]
    takes, gives = (4 * _STEPS * _ROWS * width for width in (_WIDTH, _HIDDEN))
    assert sorted(per_step) == sorted([takes, gives, gives, takes])  # x, the output, and their gradients


def test_weights_that_are_apart_are_put_into_a_block_at_every_call() -> None:
    with TracedStep(gpu="rtx4090") as traced:
        layer = nn.LSTM(_WIDTH, _HIDDEN).to("cuda")
        for parameter in layer.parameters():
            parameter.data = parameter.data.clone()
        x = torch.zeros(_STEPS, _ROWS, _WIDTH, device="cuda")
        outputs = [layer(x)[0] for _ in range(2)]
    assert len(outputs) == 2
    assert traced.timeline.nbytes.count(4 * _count(layer, 4)) == 3


def test_moved_once_more_the_weights_get_a_new_block() -> None:
    with TracedStep(gpu="rtx4090") as traced:
        layer = nn.LSTM(_WIDTH, _HIDDEN).to("cuda").to("cuda")
        layer(torch.zeros(_STEPS, _ROWS, _WIDTH, device="cuda"))
    timeline, nbytes = traced.timeline, 4 * _count(layer, 4)
    assert timeline.nbytes.count(nbytes) == 2
    alive = [timeline.nbytes[row] for row in timeline.alive_at(len(timeline.events))]
    assert alive.count(nbytes) == 1
