"""Matrices by their entries against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.ops import sparse as ops
from memcalc.tape.tape import Array, Tensor, new
from tests.tape.side_by_side import DTYPES, Op, assert_same, without_row


def _added_on_tape(dtype: str, values: Tensor, places: Array) -> Tensor:
    dense = Tensor(new((6, 5), dtype, "empty"))
    return ops.with_entries(dense, ops.by_entries(values, dense.shape))


def _added(dtype: str, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """peft 0.21.2, tuners/shira/layer.py, Linear.forward and get_delta_weight."""
    dense = torch.empty(6, 5, dtype=DTYPES[dtype], device="meta")
    dense += torch.sparse_coo_tensor(places, values, (6, 5), check_invariants=False)
    return dense


def _row(dtype: str, values: str, over: tuple[str, ...] = ("bf16",)) -> Op:
    return Op(
        lambda *given: _added_on_tape(dtype, *given),
        lambda *given: _added(dtype, *given),
        lambda b: ((b + 7,),),
        lambda b: (((2, b + 7), "int32"),),
        dtypes=(values,),
        layouts=("contiguous", "leaf"),
        over=over,
    )


OPS: Final = {
    "with_entries, of its own dtype": _row("bf16", "bf16"),
    "with_entries, of a wider dtype": _row("bf16", "fp32"),
    "by_entries, of a narrower dtype": _row("fp32", "bf16"),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
