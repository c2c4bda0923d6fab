"""Recurrent layers as cuDNN runs them, without what it alone knows the size of (kernels/recurrent.py).

Source: PyTorch 2.13, torch/nn/modules/rnn.py, LSTM.forward; aten/src/ATen/native/cudnn/RNN.cpp;
aten/src/ATen/cudnn/AutocastRNN.cpp; tools/autograd/derivatives.yaml, _cudnn_rnn.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from memcalc.tape.layouts import Shape, contiguous_strides, is_contiguous
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.ops.views import reshape_array, swap
from memcalc.tape.tape import Array, Storage, Tensor, like, new, products, record, save, tape, wants

_GATES = 4


class Part(NamedTuple):
    """A parameter of torch.nn.LSTM."""

    name: str
    shape: Shape


def lstm_parts(width: int, hidden: int, layers: int, directions: int) -> list[Part]:
    """Its parameters in order, for inputs of that width: in each layer and direction two weights and two biases."""
    found = []
    for layer in range(layers):
        for suffix in ("", "_reverse")[:directions]:
            d_in, rows = width if layer == 0 else hidden * directions, _GATES * hidden
            found += [
                Part(f"weight_ih_l{layer}{suffix}", (rows, d_in)),
                Part(f"weight_hh_l{layer}{suffix}", (rows, hidden)),
                Part(f"bias_ih_l{layer}{suffix}", (rows,)),
                Part(f"bias_hh_l{layer}{suffix}", (rows,)),
            ]
    return found


def in_one_block(weights: Sequence[Array], category: str = "") -> list[Array]:
    """flatten_parameters: the weights as views of one new block, into which they are copied."""
    dtype = weights[0].dtype
    block = new((sum(prod(weight.shape) for weight in weights),), dtype, "zeros", category)
    return [Array(block.storage, weight.shape, contiguous_strides(weight.shape), dtype) for weight in weights]


def lstm(x: Tensor, weights: Sequence[Tensor], directions: int) -> Tensor:
    """torch.nn.LSTM in training, batch first, begun with states of zeros: (b, s, d) -> (b, s, directions * hidden).

    Allocates: the states that it begins with; x with its steps first, where that needs a copy; the output, and the
    states that it ends with, which nobody takes. Weights that do not lie in one block are copied into one. Under
    autocast all is fp16, whatever autocast's dtype, and weights always are.
    Saves: x, the weights and their block, the first states, the output. Backward allocates: zeros for the gradients of
    the last states; x and the gradient with their steps first, where that needs copies; gradients of x and of the first
    states; then those of the weights, in one block.
    """
    b, _, _ = x.shape
    hidden = weights[0].shape[0] // _GATES
    states = (len(weights) // 4, b, hidden)
    h, c = (new(states, x.dtype, "zeros") for _ in range(2))
    size = prod(x.shape[:2]) * sum(prod(weight.shape) for weight in weights if len(weight.shape) == 2)
    if tape.autocast is None or x.dtype == weights[0].dtype == "fp16":
        return _cudnn_rnn(x, weights, _one_storage(weights), h, c, directions, size)
    block = new((sum(prod(weight.shape) for weight in weights),), "fp16", "zeros", "workspace").storage
    copies = [_column(weight, block) for weight in weights]
    x_low = cast(x, "fp16")
    return _cudnn_rnn(x_low, copies, block, like(h, "to", "fp16"), like(c, "to", "fp16"), directions, size)


def _one_storage(weights: Sequence[Tensor]) -> Storage | None:
    storage = weights[0].data.storage
    return storage if all(weight.data.storage is storage for weight in weights) else None


def _column(weight: Tensor, block: Storage) -> Tensor:
    """A weight copied into its place in a block of fp16, as a column. Backward: a gradient in the weight's dtype."""
    shape, dtype, size = weight.shape, weight.dtype, prod(weight.shape)

    def backward(g: Array) -> list[Array]:
        return [reshape_array(like(g, "to", dtype), shape)]

    return record(Array(block, (size, 1), (1, 1), "fp16"), (weight,), backward)


def _cudnn_rnn(
    x: Tensor, weights: Sequence[Tensor], block: Storage | None, h: Array, c: Array, directions: int, multiply_adds: int
) -> Tensor:
    b, steps, width = x.shape
    states, dtype, count = h.shape, x.dtype, sum(prod(weight.shape) for weight in weights)
    trains = any(wants(weight) for weight in weights)
    kept = [save(one) for one in (x.data, *(weight.data for weight in weights), h, c)] if trains or wants(x) else []
    _steps_first = _contiguous(swap(x.data, 0, 1))
    out = new((steps, b, states[2] * directions), dtype, "_cudnn_rnn")
    _last = [new(states, dtype, "_cudnn_rnn") for _ in range(2)]
    whole = new((count,), dtype, "_cudnn_rnn") if block is None else Array(block, (count,), (1,), dtype)
    products(multiply_adds)
    out = Array(out.storage, (b, steps, out.shape[2]), swap(out, 0, 1).strides, dtype)
    kept += [save(out), save(whole)] if kept else []
    layouts = [(weight.shape, weight.data.strides) for weight in weights]

    def backward(g: Array) -> list[Array | None]:
        held = [one.get() for one in kept]
        _of_last = [new(states, dtype, "zeros_like") for _ in range(2)]
        copies = [_contiguous(swap(one, 0, 1)) for one in (held[0], g)]
        gx = new((steps, b, width), dtype, "_cudnn_rnn_backward")
        _of_first = [new(states, dtype, "_cudnn_rnn_backward") for _ in range(2)]
        del copies
        products(multiply_adds)
        gw: list[Array | None] = [None] * len(layouts)
        if trains:
            _again = _contiguous(swap(held[0], 0, 1))
            gradients = new((count,), dtype, "_cudnn_rnn_backward").storage
            products(multiply_adds)
            gw = [Array(gradients, shape, strides, dtype) for shape, strides in layouts]
        return [Array(gx.storage, (b, steps, width), swap(gx, 0, 1).strides, dtype), *gw]

    return record(out, (x, *weights), backward)


def _contiguous(array: Array) -> Array:
    return array if is_contiguous(array.shape, array.strides) else new(array.shape, array.dtype, "clone")
