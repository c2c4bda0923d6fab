"""Convolutions against torch on meta."""

from typing import Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.ops import convolving as ops
from memcalc.tape.tape import Tensor, new
from tests.tape.side_by_side import Op, assert_same, without_row


def _upsampled(x: Tensor) -> Tensor:
    return ops.upsampled(x, Tensor(new((4, 1, 6, 6), x.dtype, "filters")))


def _of_torch(x: torch.Tensor) -> torch.Tensor:
    return F.conv_transpose2d(x, torch.zeros(4, 1, 6, 6, dtype=x.dtype, device="meta"), stride=2)


OPS: Final = {
    "upsampled": Op(_upsampled, _of_torch, lambda b: ((b, 4, 5, 8),), layouts=("contiguous", "leaf")),
    "upsampled, autocast": Op(
        _upsampled, _of_torch, lambda b: ((b, 4, 5, 8),), layouts=("contiguous",), amp="bf16", over=("fp32",)
    ),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
