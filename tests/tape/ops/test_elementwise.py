"""Each element-wise op against torch on meta, for every requires-grad combination of its inputs."""

from typing import Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import elementwise as ops
from memcalc.tape.ops.views import view
from memcalc.tape.tape import Array, Tensor
from tests.tape.side_by_side import Op, assert_same, without_row


def _one(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8),)


def _two(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (b, 5, 8))


def _matrix(b: int) -> tuple[Shape, ...]:
    return ((b + 4, 8),)


def _rows_scaled(x: Tensor, by: Array) -> Tensor:
    fresh = ops.scale(x)
    return ops.rows_scaled_in_place(view(fresh, fresh.shape), by)


def _rows_scaled_of_torch(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return (x * 2).view(x.shape).mul_(by)


_DENSE: Final = ("contiguous", "leaf")

OPS: Final = {
    "add": Op(ops.add, torch.add, _two),
    "multiplied_in_place": Op(
        lambda x, y: ops.multiplied_in_place(ops.neg(x), y), lambda x, y: x.neg().mul_(y), _two, views=False
    ),
    "multiplied_in_place, wider": Op(
        lambda x, y: ops.multiplied_in_place(ops.neg(x), y),
        lambda x, y: x.neg().mul_(y),
        _two,
        views=False,
        dtypes=("fp32", ""),
        layouts=("contiguous",),
    ),
    "add, a vector": Op(ops.add, torch.add, lambda b: ((b, 5, 8), (8,))),
    "add, to a vector": Op(ops.add, torch.add, lambda b: ((8,), (b, 5, 8))),
    "add, a mask": Op(ops.add, torch.add, lambda b: ((b, 3, 5, 8), (b, 1, 5, 8))),
    "add, wider": Op(ops.add, torch.add, _two, dtypes=("", "fp32")),
    "add, to the wider": Op(ops.add, torch.add, _two, dtypes=("fp32", "")),
    "add, without the batch": Op(ops.add, torch.add, lambda b: ((b, 5, 8), (5, 8))),
    "add, both broadcast": Op(
        ops.add, torch.add, lambda b: ((b, 1, 8), (1, 5, 8)), layouts=("contiguous", "leaf", "sliced")
    ),
    "add, scalars": Op(ops.add, torch.add, lambda _: ((), ()), dtypes=("fp32", "")),
    "sub": Op(ops.sub, torch.sub, _two),
    "sub, a column": Op(ops.sub, torch.sub, lambda b: ((b, 5, 8), (b, 5, 1))),
    "mul": Op(ops.mul, torch.mul, _two),
    "mul, a vector first": Op(ops.mul, torch.mul, lambda b: ((8,), (b, 5, 8))),
    "mul, a column": Op(ops.mul, torch.mul, lambda b: ((b, 5, 8), (b, 5, 1))),
    "mul, per head": Op(ops.mul, torch.mul, lambda b: ((b, 3, 5, 8), (1, 1, 5, 8))),
    "mul, narrower": Op(ops.mul, torch.mul, _two, dtypes=("fp32", "")),
    "mul, wider": Op(ops.mul, torch.mul, lambda b: ((8,), (b, 5, 8)), dtypes=("", "fp32")),
    "mul, by a scalar on the device": Op(ops.mul, torch.mul, lambda b: ((b, 5, 8), ()), dtypes=("", "fp32")),
    "mul, scalars": Op(ops.mul, torch.mul, lambda _: ((), ())),
    "sigmoid": Op(ops.sigmoid, torch.sigmoid, _one),
    "hardtanh": Op(ops.hardtanh, F.hardtanh, _one),
    "at_least": Op(ops.at_least, lambda x: torch.clamp(x, min=1e-4), _one),
    "within": Op(ops.within, lambda x: torch.clamp(x, 1e-4, 0.9), _one),
    "log": Op(ops.log, torch.log, _one),
    "log1p": Op(ops.log1p, torch.log1p, _one),
    "log, autocast": Op(ops.log, torch.log, _one, amp="bf16"),
    "log1p, autocast": Op(ops.log1p, torch.log1p, _one, amp="bf16"),
    "cos": Op(ops.cos, torch.cos, _one),
    "sin": Op(ops.sin, torch.sin, _one),
    "scale": Op(ops.scale, lambda x: x * 0.5, _one),
    "divide": Op(ops.divide, lambda x: x / 3, _one),
    "quotient": Op(ops.quotient, torch.div, _two),
    "quotient, a vector": Op(ops.quotient, torch.div, lambda b: ((b, 5, 8), (8,))),
    "divided": Op(ops.divided, torch.div, _one, lambda _: (((), "fp32"),)),
    "divided, a scalar": Op(ops.divided, torch.div, lambda _: ((),), lambda _: (((), "fp32"),), over=("fp32",)),
    "scaled_in_place": Op(lambda x: ops.scaled_in_place(ops.shift(x)), lambda x: (x + 1).mul_(2), _one),
    "added_in_place": Op(
        lambda x, y: ops.added_in_place(ops.scale(x)),
        lambda x, y: (x * 2).add_(y),
        _one,
        lambda b: (((b, 5, 8), "bf16"),),
    ),
    "added_in_place, scaled": Op(
        lambda x, y: ops.added_in_place(ops.scale(x), y, scaled=True), lambda x, y: (x * 2).add_(y, alpha=2.0), _two
    ),
    "added_in_place, a gradient": Op(
        lambda x, y: ops.added_in_place(ops.scale(x), y), lambda x, y: (x * 2).add_(y), _two
    ),
    "added_in_place, through a view": Op(
        lambda x, y: ops.added_in_place(view(ops.scale(x), x.shape), y),
        lambda x, y: (x * 2).view(x.shape).add_(y),
        lambda b: (*_matrix(b), *_matrix(b)),
        layouts=_DENSE,
    ),
    "added_in_place, twice through a view": Op(
        lambda x, y: ops.added_in_place(ops.added_in_place(view(ops.scale(x), x.shape), y), y),
        lambda x, y: (x * 2).view(x.shape).add_(y).add_(y),
        lambda b: (*_matrix(b), *_matrix(b)),
        layouts=_DENSE,
    ),
    "added_in_place, of another dtype": Op(
        lambda x, y: ops.added_in_place(ops.scale(x), y), lambda x, y: (x * 2).add_(y), _two, dtypes=("", "fp32")
    ),
    "rows_scaled_in_place": Op(
        _rows_scaled, _rows_scaled_of_torch, _matrix, lambda b: (((b + 4, 1), "bf16"),), layouts=_DENSE
    ),
    "rows_scaled_in_place, by fp32": Op(
        _rows_scaled, _rows_scaled_of_torch, _matrix, lambda b: (((b + 4, 1), "fp32"),), layouts=_DENSE
    ),
    "shift": Op(ops.shift, lambda x: x + 1e-6, _one),
    "neg": Op(ops.neg, torch.neg, _one),
    "cast, to fp32": Op(lambda x: ops.cast(x, "fp32"), lambda x: x.to(torch.float32), _one),
    "cast, to bf16": Op(lambda x: ops.cast(x, "bf16"), lambda x: x.to(torch.bfloat16), _one),
    "square": Op(ops.square, lambda x: x.pow(2), _one),
    "power": Op(ops.power, lambda x: x.pow(3.0), _one),
    "rsqrt": Op(ops.rsqrt, torch.rsqrt, _one),
    "silu": Op(ops.silu, F.silu, _one),
    "gelu": Op(ops.gelu, F.gelu, _one),
    "gelu, by tanh": Op(ops.gelu, lambda x: F.gelu(x, approximate="tanh"), _one),
    "relu": Op(ops.relu, F.relu, _one),
    "exp": Op(ops.exp, torch.exp, _one),
    "exp, autocast": Op(ops.exp, torch.exp, _one, amp="bf16", over=("fp32", "bf16")),
    "tanh": Op(ops.tanh, torch.tanh, _one),
    "mean": Op(ops.mean, lambda x: x.mean(-1, keepdim=True), _one),
    "dropout": Op(lambda x: ops.dropout(x, 0.1), lambda x: F.dropout(x, 0.1), _one),
    "dropout, none": Op(lambda x: ops.dropout(x, 0.0), lambda x: F.dropout(x, 0.0), _one, views=False),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
