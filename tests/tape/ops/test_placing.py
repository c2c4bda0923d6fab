"""Values at given places against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import placing as ops
from memcalc.tape.tape import Tensor, new
from tests.tape.side_by_side import Op, assert_same, without_row


def _indices(_: int) -> tuple[tuple[Shape, str], ...]:
    return (((15,), "int64"), ((15,), "int64"))


def _placed(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """peft 0.21.2, tuners/oft/layer.py, _pytorch_skew_symmetric, before the difference."""
    matrix = torch.zeros(x.shape[0], 6, 6, device=x.device, dtype=x.dtype)
    matrix[:, rows, columns] = x
    return matrix


OPS: Final = {
    "placed": Op(
        lambda x, rows, columns: ops.placed(x, new((x.shape[0], 6, 6), x.dtype, "zeros"), (rows, columns)),
        _placed,
        lambda b: ((b, 15),),
        _indices,
        layouts=("contiguous", "leaf"),
    ),
    "placed_in_copy": Op(
        lambda x, rows, columns: ops.placed_in_copy(x, new((6, 6), x.dtype, "zeros"), (rows, columns)),
        lambda x, rows, columns: x.new_zeros(6, 6).index_put((rows, columns), x),
        lambda _: ((15,),),
        _indices,
        layouts=("contiguous", "leaf"),
    ),
    "largest": Op(
        lambda x: ops.largest(x, 3)[0], lambda x: x.topk(3, dim=-1)[0], lambda b: ((b, 5, 8),), gradients=("expanded",)
    ),
    "where_true, of a vector": Op(
        lambda x: ops.where_true(x, new(x.shape, "bool", "ones"), x.shape[0]),
        lambda x: x[torch.ones(x.shape, dtype=torch.bool, device="meta")],
        lambda b: ((b + 4,),),
        layouts=("contiguous", "leaf"),
    ),
    "rows_of": Op(
        ops.rows_of,
        lambda x, index: x.index_select(0, index),
        lambda b: ((b + 2, 5, 8),),
        lambda b: (((b,), "int64"),),
        layouts=("contiguous", "leaf"),
        views=False,
    ),
    "where_true": Op(
        lambda x: ops.where_true(x, new(x.shape, "bool", "ones"), 5 * x.shape[0]),
        lambda x: x[torch.ones(x.shape, dtype=torch.bool, device="meta")],
        lambda b: ((b, 5),),
    ),
    "rows_replaced": Op(
        lambda rows, index: ops.rows_replaced(_table(rows), rows, index),
        lambda rows, index: torch.empty(9, 8, dtype=rows.dtype, device="meta").index_copy(0, index, rows),
        lambda b: ((b + 1, 8),),
        lambda b: (((b + 1,), "int64"),),
        layouts=("contiguous", "leaf"),
    ),
}


def _table(rows: Tensor) -> Tensor:
    return Tensor(new((9, 8), rows.dtype, "empty"))


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
