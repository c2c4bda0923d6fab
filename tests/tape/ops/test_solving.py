"""Linear systems and matrices of blocks against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.ops import solving as ops
from tests.tape.side_by_side import Op, assert_same, without_row

OPS: Final = {
    "solved_from_right": Op(
        ops.solved_from_right,
        lambda a, b: torch.linalg.solve(a, b, left=False),
        lambda b: ((b + 2, 4, 4), (b + 2, 4, 4)),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
        gradients=(),
        untrained=False,
        views=False,
    ),
    "solved_from_right, one": Op(
        ops.solved_from_right,
        lambda a, b: torch.linalg.solve(a, b, left=False),
        lambda b: ((b + 2, b + 2), (b + 2, b + 2)),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
        gradients=(),
        untrained=False,
        views=False,
    ),
    "qr": Op(
        ops.qr,
        lambda x: torch.linalg.qr(x)[0],
        lambda b: ((b + 5, 3),),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
        gradients=(),
    ),
    "block_diagonal": Op(
        ops.block_diagonal,
        lambda x: torch.block_diag(*torch.unbind(x)),
        lambda b: ((b + 2, 4, 4),),
        layouts=("contiguous", "leaf"),
        gradients=(),
    ),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
