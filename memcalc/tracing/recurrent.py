"""Recurrent layers as they run on CUDA: cuDNN's operator in place of PyTorch's own steps, their weights in one block.

What cuDNN alone knows the size of is left out: see kernels/recurrent.py.
Source: PyTorch 2.13, aten/src/ATen/native/RNN.cpp (lstm), aten/src/ATen/native/cudnn/RNN.cpp, torch/nn/modules/rnn.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from memcalc import kernels

aten = torch.ops.aten

_MODES = ("rnn_relu", "rnn_tanh", "lstm", "gru")  # cudnnRNNMode_t, in order
_GATES = (1, 1, 4, 3)


def left_out(models: Iterable[nn.Module]) -> tuple[str, ...]:
    """What the footprint says where any of the models' modules is recurrent."""
    recurrent = any(isinstance(module, nn.RNNBase) for model in models for module in model.modules())
    return (kernels.CUDNN_SPACES_LEFT_OUT,) if recurrent else ()


def composites() -> dict[Any, Callable[..., Any]]:
    """at::lstm and its kin, as they are on tensors that cuDNN takes."""
    return {getattr(aten, name).input: _by_cudnn(mode) for mode, name in enumerate(_MODES)}


def _by_cudnn(mode: int) -> Callable[..., Any]:
    """_cudnn_impl."""

    def layer(
        x: torch.Tensor,
        hx: Any,
        weights: list[torch.Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        h, c = hx if isinstance(hx, list | tuple) else (hx, None)
        hidden, projection = h.shape[2], 0
        if c is not None and c.shape[2] != hidden:
            hidden, projection = c.shape[2], hidden
        each = len(weights) // (layers * (2 if bidirectional else 1))
        sizes = hidden, projection, layers
        found = _whole_block(weights, _count(mode, x.shape[-1], *sizes, bidirectional=bidirectional))
        out = aten._cudnn_rnn.default(
            x, weights, each, found, h, c, mode, *sizes, batch_first, dropout, train, bidirectional, [], None
        )
        return out[:2] if c is None else out[:3]

    return layer


def _count(mode: int, input_size: int, hidden_size: int, projection: int, layers: int, *, bidirectional: bool) -> int:
    return kernels.cudnn_rnn_weights(
        gates=_GATES[mode],
        input_size=input_size,
        hidden_size=hidden_size,
        layers=layers,
        directions=2 if bidirectional else 1,
        projection=projection,
    )


def _whole_block(weights: Sequence[torch.Tensor], count: int) -> torch.Tensor | None:
    """try_get_weight_buf: the block that holds all weights, if one does."""
    first = weights[0].detach()
    storage = first.untyped_storage()
    if any(weight.untyped_storage()._cdata != storage._cdata for weight in weights):
        return None
    if storage.nbytes() < count * first.element_size():
        return None
    return first.as_strided((count,), (1,), 0)


def flatten_parameters(self: nn.RNNBase) -> None:
    """nn.RNNBase.flatten_parameters on CUDA: a new block for all weights, which they become views of."""
    weights: list[Any] = self._flat_weights
    if len(weights) != len(self._flat_weights_names) or not all(isinstance(weight, torch.Tensor) for weight in weights):
        return
    if any(not weight.is_meta or weight.dtype != weights[0].dtype for weight in weights):
        return
    mode = _MODES.index(self.mode.lower())
    sizes = self.input_size, self.hidden_size, self.proj_size, self.num_layers
    count = _count(mode, *sizes, bidirectional=self.bidirectional)
    with torch.no_grad():
        block = torch.zeros(count, dtype=weights[0].dtype, device=weights[0].device)
        for weight, (offset, _) in zip(weights, _places(weights), strict=True):
            weight.set_(block.as_strided(weight.shape, weight.stride(), offset))


def _places(weights: Sequence[torch.Tensor]) -> Iterator[tuple[int, int]]:
    """Where each weight begins, and its size: in which order they stand changes no block."""
    offset = 0
    for weight in weights:
        yield offset, weight.numel()
        offset += weight.numel()


def in_half(weights: Sequence[torch.Tensor], count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """copy_weights_to_flat_buf_views: weights copied into a block of fp16, through autograd, each as a column."""
    block = torch.zeros(count, dtype=torch.float16, device=weights[0].device)
    copies = []
    for weight, (offset, size) in zip(weights, _places(weights), strict=True):
        part = torch.empty(0, dtype=block.dtype, device=block.device)
        part.set_(block.untyped_storage(), offset, (size, 1), (1, 1))
        copies.append(part.copy_(weight.view(size, 1)))
    return block, copies


def weight_count(x: torch.Tensor, rest: Sequence[Any]) -> int:
    """Of the layer that _cudnn_rnn's arguments behind cx tell of."""
    mode, hidden, projection, layers, _, _, _, bidirectional = rest[:8]
    return _count(mode, x.shape[-1], hidden, projection, layers, bidirectional=bidirectional)


def forward(
    x: torch.Tensor,
    weights: list[torch.Tensor],
    each: int,
    block: torch.Tensor | None,
    hx: torch.Tensor,
    cx: torch.Tensor | None,
    *rest: Any,
) -> Any:
    """_cudnn_rnn: what it allocates beside its reserve and its workspace."""
    _, hidden, projection, layers, batch_first, _, _, bidirectional = rest[:8]
    directions = 2 if bidirectional else 1
    if batch_first:
        x = x.transpose(0, 1)
    x = x.contiguous()
    steps, batch = x.shape[:2]
    output = x.new_empty(steps, batch, (projection or hidden) * directions)
    hy = hx.new_empty(layers * directions, batch, projection or hidden)
    cy = hx.new_empty(0) if cx is None else cx.new_empty(layers * directions, batch, hidden)
    if block is None:
        block = x.new_empty(weight_count(x, rest))
    if batch_first:
        output.transpose_(0, 1)
    return output, hy, cy, x.new_empty(0, dtype=torch.uint8), block


def backward(
    x: torch.Tensor,
    weights: list[torch.Tensor],
    each: int,
    block: torch.Tensor,
    hx: torch.Tensor,
    cx: torch.Tensor | None,
    output: torch.Tensor,
    grad: torch.Tensor | None,
    grad_hy: torch.Tensor | None,
    grad_cy: torch.Tensor | None,
    *rest: Any,
) -> Any:
    """_cudnn_rnn_backward: of the inputs always, then of the weights, in a block of their own."""
    _, _, projection, _, batch_first = rest[:5]
    wanted = rest[-1]
    grad = torch.zeros_like(output, memory_format=torch.contiguous_format) if grad is None else grad
    grad_hy = torch.zeros_like(hx) if grad_hy is None else grad_hy
    if grad_cy is None and cx is not None:
        grad_cy = torch.zeros_like(cx)
    gx, ghx, gcx = _of_inputs(x, hx, cx, grad, batch_first=batch_first)
    gw = (
        _of_weights(x, weights, each, block, biased=5 if projection else 4, batch_first=batch_first)
        if wanted[3]
        else []
    )
    return gx, ghx, gcx, gw


def _of_inputs(
    x: torch.Tensor, hx: torch.Tensor, cx: torch.Tensor | None, grad: torch.Tensor, *, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    if batch_first:
        x, grad = x.transpose(0, 1), grad.transpose(0, 1)
    _x, _grad = x.contiguous(), grad.contiguous()
    gx = torch.empty_like(x, memory_format=torch.contiguous_format)
    ghx, gcx = torch.empty_like(hx), None if cx is None else torch.empty_like(cx)
    return gx.transpose_(0, 1) if batch_first else gx, ghx, gcx


def _of_weights(
    x: torch.Tensor, weights: list[torch.Tensor], each: int, block: torch.Tensor, *, biased: int, batch_first: bool
) -> list[torch.Tensor]:
    _x = (x.transpose(0, 1) if batch_first else x).contiguous()
    gradients = torch.zeros_like(block)
    if each != biased:  # cuDNN's block has biases that the layer has not: what it has is copied out
        return [torch.empty_like(weight) for weight in weights]
    return [
        gradients.as_strided(weight.shape, weight.stride(), offset)
        for weight, (offset, _) in zip(weights, _places(weights), strict=True)
    ]
