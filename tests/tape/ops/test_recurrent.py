"""cuDNN's LSTM against torch's own autograd on meta, over the operator that trace puts in its place."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
import torch
from torch import nn

from memcalc.kernels import cudnn_rnn_weights
from memcalc.tape.layouts import Shape
from memcalc.tape.ops import recurrent as ops
from memcalc.tape.tape import Leaf, Tensor, new
from memcalc.tracing.recurrent import flatten_parameters
from tests.tape.side_by_side import DTYPES, Op, assert_same, without_row

D, H = 3, 4


def _apart(b: int) -> Sequence[Shape]:
    return (b, 5, D), *(part.shape for part in ops.lstm_parts(D, H, 1, 1))


def _lstm(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    """torch.nn.LSTM.forward, of one layer."""
    h, c = (torch.zeros(1, x.shape[0], H, dtype=x.dtype, device=x.device) for _ in range(2))
    output: torch.Tensor = torch._VF.lstm(x, (h, c), weights, True, 1, 0.0, True, False, True)[0]
    return output


def _weights(dtype: str) -> list[Tensor]:
    """Of two layers, both ways, as loading leaves them."""
    apart = [new(part.shape, dtype, "empty") for part in ops.lstm_parts(D, H, 2, 2)]
    return [Tensor(array, Leaf(array, "gradients")) for array in ops.in_one_block(apart)]


def _module(dtype: str) -> nn.LSTM:
    module = nn.LSTM(D, H, 2, batch_first=True, bidirectional=True, device="meta", dtype=DTYPES[dtype])
    flatten_parameters(module)
    return module


def _in_one_block(amp: str = "none", over: Sequence[str] = ("fp32", "fp16")) -> Op:
    return Op(
        lambda weights, x: ops.lstm(x, weights, 2),
        lambda module, x: module(x)[0],
        lambda b: ((b, 5, D),),
        made=(_weights, _module),
        amp=amp,
        over=over,
    )


OPS: Final[dict[str, Op]] = {
    "lstm, of weights apart": Op(
        lambda x, *weights: ops.lstm(x, weights, 1),
        _lstm,
        _apart,
        layouts=("contiguous",),
        gradients=(),
        over=("fp32",),
        untrained=False,
    ),
    "lstm, of weights in one block": _in_one_block(),
    "lstm, autocast": _in_one_block("bf16"),
    "lstm, autocast to its own": _in_one_block("fp16"),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"bidirectional": True}])
def test_its_parameters_are_torchs_and_fill_cudnns_block(options: dict[str, Any]) -> None:
    module = nn.LSTM(5, 7, device="meta", **options)
    layers, directions = module.num_layers, 2 if module.bidirectional else 1
    parts = ops.lstm_parts(5, 7, layers, directions)
    assert parts == [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
    filled = cudnn_rnn_weights(gates=4, input_size=5, hidden_size=7, layers=layers, directions=directions)
    assert filled == sum(parameter.numel() for parameter in module.parameters())
