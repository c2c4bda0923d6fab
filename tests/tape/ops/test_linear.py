"""Each product against torch on meta, for every requires-grad combination of its inputs."""

from typing import Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import linear as ops
from memcalc.tape.ops.elementwise import add
from memcalc.tape.ops.views import transpose
from tests.tape.side_by_side import Op, assert_same, without_row


def _linear(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (6, 8))


def _biased(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (6, 8), (6,))


def _bmm(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (b, 8, 6))


def _baddbmm(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 6), (b, 5, 8), (b, 8, 6))


def _conv1d(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """transformers' Conv1D.forward."""
    return torch.addmm(bias, x.view(-1, x.shape[-1]), w).view(*x.shape[:-1], w.shape[1])


# What a model gives a linear layer: activations without gaps, weights that are leaves or copies of them.
_DENSE: Final = ("contiguous", "leaf")

OPS: Final = {
    "linear": Op(ops.linear, F.linear, _linear, layouts=_DENSE),
    "linear, by a turned weight": Op(ops.linear, F.linear, _linear, layouts=(_DENSE, ("contiguous", "transposed"))),
    "linear, biased, by a turned weight": Op(
        ops.linear, F.linear, _biased, layouts=(_DENSE, ("contiguous", "transposed"), _DENSE), views=False
    ),
    "linear, twice by one weight": Op(
        lambda x, w: add(ops.linear(x, w), ops.linear(x, w)),
        lambda x, w: F.linear(x, w) + F.linear(x, w),
        _linear,
        layouts=_DENSE,
    ),
    "linear, of a matrix": Op(ops.linear, F.linear, lambda b: ((b * 5, 8), (6, 8)), layouts=_DENSE),
    "linear, of one token": Op(ops.linear, F.linear, lambda b: ((b, 1, 8), (6, 8)), layouts=_DENSE),
    "linear, biased": Op(ops.linear, F.linear, _biased, layouts=_DENSE),
    "linear, biased, of a matrix": Op(ops.linear, F.linear, lambda b: ((b * 5, 8), (6, 8), (6,)), layouts=_DENSE),
    "linear, biased, of one token": Op(ops.linear, F.linear, lambda b: ((b, 1, 8), (6, 8), (6,)), layouts=_DENSE),
    "linear, autocast": Op(ops.linear, F.linear, _linear, layouts=_DENSE, amp="bf16", over=("bf16", "fp32")),
    "linear, biased, autocast": Op(ops.linear, F.linear, _biased, layouts=_DENSE, amp="bf16", over=("fp32",)),
    "linear, autocast, over half": Op(
        ops.linear, F.linear, _linear, layouts=_DENSE, amp="bf16", dtypes=("fp32", "bf16")
    ),
    "conv1d": Op(ops.conv1d, _conv1d, lambda b: ((b, 5, 8), (8, 6), (6,)), layouts=_DENSE),
    "conv1d, autocast": Op(
        ops.conv1d, _conv1d, lambda b: ((b, 5, 8), (8, 6), (6,)), layouts=_DENSE, amp="bf16", over=("bf16", "fp32")
    ),
    "linear_by_hand": Op(ops.linear_by_hand, lambda x, w: x @ w.T, _linear, layouts=_DENSE),
    "linear_by_hand, autocast": Op(
        ops.linear_by_hand, lambda x, w: x @ w.T, _linear, layouts=_DENSE, amp="bf16", over=("bf16", "fp32")
    ),
    "matmul": Op(ops.matmul, torch.matmul, lambda b: ((b, 5, 8), (8, 6)), layouts=_DENSE),
    "matmul, autocast": Op(
        ops.matmul, torch.matmul, lambda b: ((b, 5, 8), (8, 6)), layouts=_DENSE, amp="bf16", over=("bf16", "fp32")
    ),
    "mm": Op(ops.mm, torch.mm, lambda b: ((b + 3, 8), (8, 6))),
    "mm, by columns": Op(
        lambda x, y: ops.mm(transpose(x, 0, 1), transpose(y, 0, 1)),
        lambda x, y: x.t() @ y.t(),
        lambda b: ((8, b + 3), (6, 8)),
        layouts=_DENSE,
    ),
    "mm, autocast": Op(ops.mm, torch.mm, lambda b: ((b + 3, 8), (8, 6)), amp="bf16", over=("bf16", "fp32")),
    "bmm": Op(ops.bmm, torch.bmm, _bmm),
    "bmm, autocast": Op(ops.bmm, torch.bmm, _bmm, amp="fp16", over=("bf16", "fp32")),
    "baddbmm": Op(ops.baddbmm, lambda base, x, y: base.baddbmm(x, y, beta=1.0, alpha=0.5), _baddbmm),
    "baddbmm, over rows": Op(
        ops.baddbmm,
        lambda base, x, y: base.baddbmm(x, y, beta=1.0, alpha=0.5),
        lambda b: ((b, 1, 6), (b, 5, 8), (b, 8, 6)),
    ),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
