"""Dims in another order, and copies along one, against torch on meta."""

from typing import Final

import pytest

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import arranging as ops
from memcalc.tape.ops.views import split, view
from tests.tape.side_by_side import Op, assert_same, without_row


def _heads(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 5, 6),)


OPS: Final = {
    "permute": Op(lambda x: ops.permute(x, (2, 0, 3, 1)), lambda x: x.permute(2, 0, 3, 1), _heads),
    "repeat": Op(lambda x: ops.repeat(x, 3), lambda x: x.repeat(3, 1, 1, 1), _heads),
    "repeat, a middle dim": Op(lambda x: ops.repeat(x, 3, 1), lambda x: x.repeat(1, 3, 1, 1), _heads),
    "repeat, rows": Op(lambda x: ops.repeat(view(x, (1, 5, 6)), 3), lambda x: x.repeat(3, 1, 1), lambda b: ((5, 6),)),
    "repeat, rows once": Op(lambda x: ops.repeat(x, 1), lambda x: x.repeat(1, 1, 1), lambda b: ((1, 5, 6),)),
    "roll": Op(ops.roll, lambda x: x.roll(-2, 1), _heads),
    "roll, a half": Op(lambda x: ops.roll(split(x, (2, 2), 1)[1]), lambda x: x.chunk(2, 1)[1].roll(2, 2), _heads),
    "repeat, once": Op(lambda x: ops.repeat(x, 1), lambda x: x.repeat(1, 1, 1, 1), _heads),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
