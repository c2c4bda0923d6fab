"""Some entries of each row, found, taken and put back, against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import choosing as ops
from memcalc.tape.ops.elementwise import silu
from memcalc.tape.tape import Array, Tensor, new
from tests.tape.side_by_side import GPU, Op, assert_same, without_row


def _rows(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 6),)


def _two(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 6), (b, 2, 6))


def _some(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 2, 1), "int64"),)


def _gathered(x: Tensor, index: Array) -> Tensor:
    return ops.gather(x, index, (x.shape[0], 2, 6))


def _chosen(x: Tensor, count: int) -> Tensor:
    places = ops.ascending(ops.largest(x.data, count, GPU))
    return ops.gather(x, places, places.shape)


def _really_chosen(x: torch.Tensor, count: int) -> torch.Tensor:
    places = x.detach().topk(count, dim=1, sorted=False).indices.sort(dim=1).values
    return x.gather(1, places)


def _largest(rows: int, length: int, count: int) -> Op:
    return Op(
        lambda x: _chosen(x, count), lambda x: _really_chosen(x, count), lambda b: ((rows + b - 1, length),),
        layouts=("contiguous",), gradients=(), views=False,
    )  # fmt: skip


OPS: Final = {
    "gather": Op(
        _gathered, lambda x, index: x.gather(1, index.expand(-1, -1, 6)), _rows, _some, views=False,
    ),
    "gather, and more": Op(
        lambda x, index: silu(_gathered(x, index)),
        lambda x, index: torch.nn.functional.silu(x.gather(1, index.expand(-1, -1, 6))), _rows, _some, views=False,
    ),
    "scatter_add": Op(
        lambda x, y, index: ops.scatter_add(x, index, y),
        lambda x, y, index: x.scatter_add(1, index.expand(-1, -1, 6), y), _two, _some, views=False,
    ),
    "scatter_add, and more": Op(
        lambda x, y, index: silu(ops.scatter_add(x, index, silu(y))),
        lambda x, y, index: torch.nn.functional.silu(
            x.scatter_add(1, index.expand(-1, -1, 6), torch.nn.functional.silu(y))
        ), _two, _some, views=False,
    ),
    "gather, the largest of few": _largest(2, 9, 4),
    "gather, the largest of one long row, or two": _largest(1, 40_000, 5_000),
    "gather, the largest of many rows": _largest(127, 6_000, 5_000),
    "scatter_add, of vectors": Op(
        lambda values, index: ops.scatter_add(Tensor(new((40,), values.dtype, "empty")), index, values),
        lambda values, index: torch.empty(40, dtype=values.dtype, device="meta").scatter_add(0, index, values),
        lambda b: ((b + 4,),),
        lambda b: (((b + 4,), "int64"),),
        layouts=("contiguous", "leaf"),
    ),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
