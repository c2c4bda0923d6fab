"""cuDNN's recurrent layers: the one block of their weights, and what the table leaves out, for it to be learned."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from memcalc.kernels import cudnn_rnn_weights
from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal, own_blocks

aten = torch.ops.aten

LEFT_OUT = ("cudnn_rnn_reserve", "cudnn_rnn_workspace", "cudnn_rnn_backward_workspace", "cudnn_dropout_state")

_LSTM, _GATES = 2, 4  # cudnnRNNMode_t


class _Layer(NamedTuple):
    """An LSTM, and what it is given."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    layers: int
    directions: int
    dtype: str
    dropout: float = 0.0

    @property
    def weights(self) -> int:
        return cudnn_rnn_weights(
            gates=_GATES,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            layers=self.layers,
            directions=self.directions,
        )

    def shapes(self) -> Iterator[tuple[int, ...]]:
        rows = _GATES * self.hidden_size
        for layer in range(self.layers):
            width = self.hidden_size * self.directions if layer else self.input_size
            for _ in range(self.directions):
                yield from ((rows, width), (rows, self.hidden_size), (rows,), (rows,))


_LAYERS = (
    *(_Layer(steps, 1, 768, 768, 2, 2, "fp32") for steps in (1, 8, 20, 21, 100)),  # p_tuning's, by virtual tokens
    *(_Layer(20, 1, width, width, 2, 2, "fp32") for width in (128, 1024, 4096)),
    *(_Layer(20, 1, 1024, hidden, 2, 2, "fp32") for hidden in (5, 96, 2048)),
    *(_Layer(20, 1, 1024, 1024, layers, 2, "fp32") for layers in (1, 3, 4)),
    *(_Layer(20, batch, 256, 256, 2, 1, "fp32") for batch in (1, 8, 33)),
    *(_Layer(20, 1, width, width, 2, 2, "fp16") for width in (128, 768, 4096)),
    _Layer(20, 1, 1024, 1024, 2, 2, "fp32", dropout=0.1),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for layer in _LAYERS:

        def call(device: str, layer: _Layer = layer) -> Op:
            return _forward(device, layer)

        def backward(device: str, layer: _Layer = layer) -> Op:
            return _backward(device, layer)

        arguments = layer._asdict()
        yield Case("cudnn_rnn_reserve", arguments, call, lambda _, result: result[3].numel())
        yield Case("cudnn_rnn_workspace", arguments, call, own_blocks)
        yield Case("cudnn_rnn_backward_workspace", arguments, backward, own_blocks)
    for layer in (one for one in _LAYERS if one.dtype == "fp32" and not one.dropout):

        def flatten(device: str, layer: _Layer = layer) -> Op:
            weights = [normal(device, torch.float32, *shape) for shape in layer.shapes()]
            sizes = layer.input_size, _LSTM, layer.hidden_size, 0, layer.layers
            return lambda: aten._cudnn_rnn_flatten_weight.default(weights, 4, *sizes, False, layer.directions == 2)

        names = ("input_size", "hidden_size", "layers", "directions")
        arguments = {"gates": _GATES, **{name: getattr(layer, name) for name in names}}
        yield Case("cudnn_rnn_weights", arguments, flatten, lambda _, result: result.numel())
    yield Case("cudnn_dropout_state", {}, lambda device: lambda: _states(device), lambda _, result: result.numel())


def _states(device: str) -> Any:
    return aten._cudnn_init_dropout_state.default(0.1, True, 0, dtype=torch.uint8, device=device)


def _forward(device: str, layer: _Layer) -> Op:
    given = _given(device, layer)
    return lambda: aten._cudnn_rnn.default(*given)


def _backward(device: str, layer: _Layer) -> Op:
    given = _given(device, layer)
    x, weights, each, _, h, c, *rest = given
    output, hy, cy, reserve, block = aten._cudnn_rnn.default(*given)
    gradients = [torch.ones_like(one) for one in (output, hy, cy)]
    wanted = [True, False, False, True]
    return lambda: aten._cudnn_rnn_backward.default(
        x, weights, each, block, h, c, output, *gradients, *rest, reserve, wanted
    )


def _given(device: str, layer: _Layer) -> tuple[Any, ...]:
    """The operator's arguments: in training, weights in one block."""
    kind = DTYPES[layer.dtype]
    block = normal(device, kind, layer.weights)
    weights, offset = [], 0
    for shape in layer.shapes():
        weights.append(block[offset:].as_strided(shape, (shape[-1], 1)[-len(shape) :]))
        offset += weights[-1].numel()
    x = normal(device, kind, layer.steps, layer.batch, layer.input_size)
    h, c = (normal(device, kind, layer.layers * layer.directions, layer.batch, layer.hidden_size) for _ in range(2))
    sizes = _LSTM, layer.hidden_size, 0, layer.layers
    states = _states(device) if layer.dropout else None
    both = layer.directions == 2
    return x, weights, 4, block, h, c, *sizes, False, layer.dropout, True, both, [], states
