"""Sums and norms against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import reductions as ops
from tests.tape.side_by_side import Op, assert_same, without_row


def _one(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8),)


OPS: Final = {
    "total": Op(lambda x: ops.total(x, 1), lambda x: x.sum(1), _one),
    "total, autocast": Op(lambda x: ops.total(x, 2), lambda x: x.sum(-1), _one, amp="bf16", over=("fp32", "bf16")),
    "total_of_all": Op(ops.total_of_all, torch.sum, _one),
    "total_of_all, autocast": Op(ops.total_of_all, torch.sum, _one, amp="bf16", over=("fp32", "bf16")),
    "average": Op(lambda x: ops.average(x, 0), lambda x: x.mean(dim=0), _one),
    "average of all": Op(lambda x: ops.average(x, None), torch.mean, _one),
    "vector_norm": Op(
        lambda x: ops.vector_norm(x, 0), lambda x: x.norm(dim=0), lambda b: ((b + 7, 5),), over=("fp32", "bf16"),
        layouts=("contiguous", "leaf"), gradients=(),
    ),
    "vector_norm, autocast": Op(
        lambda x: ops.vector_norm(x, 0), lambda x: x.norm(dim=0), lambda b: ((b + 7, 5),), amp="bf16",
        over=("fp32", "bf16"), layouts=("contiguous", "leaf"), gradients=(),
    ),
    "vector_norm, of all": Op(
        lambda x: ops.vector_norm(x, None), lambda x: torch.norm(x, p="fro"), lambda b: ((b + 7, 5),),
        layouts=("contiguous", "leaf"), gradients=(),
    ),
    "vector_norm, of all, autocast": Op(
        lambda x: ops.vector_norm(x, None), lambda x: torch.norm(x, p="fro"), lambda b: ((b + 7, 5),), amp="bf16",
        over=("fp32", "bf16"), layouts=("contiguous", "leaf"), gradients=(),
    ),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
