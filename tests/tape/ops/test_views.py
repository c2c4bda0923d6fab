"""Each view and copy against torch on meta, and the strides of views against torch's own."""

from typing import Final

import pytest
import torch

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import views as ops
from memcalc.tape.ops.elementwise import mul, silu
from tests.tape.side_by_side import Op, assert_same, without_row


def _hidden(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 24),)


def _heads(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 5, 6),)


def _two(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 5, 6), (b, 4, 5, 6))


OPS: Final = {
    "view": Op(
        lambda x: ops.view(x, (*x.shape[:2], 4, 6)), lambda x: x.view(*x.shape[:2], 4, 6), _hidden,
    ),
    "view, back": Op(
        lambda x: ops.view(x, (x.shape[0], 20, 6)), lambda x: x.view(x.shape[0], 20, 6), _heads,
        layouts=("contiguous", "leaf", "expanded"),
    ),
    "reshape": Op(
        lambda x: ops.reshape(x, (x.shape[0] * 20, 6)), lambda x: x.reshape(x.shape[0] * 20, 6), _heads
    ),
    "reshape, of a transposition": Op(
        lambda x: ops.reshape(ops.transpose(x, 1, 2), (x.shape[0], 5, 24)),
        lambda x: x.transpose(1, 2).reshape(x.shape[0], 5, 24),
        _heads,
    ),
    "unsafe_view": Op(
        lambda x: ops.unsafe_view(ops.clone_contiguous(x), (x.shape[0], 20, 6)),
        lambda x: torch.ops.aten._unsafe_view(x.clone(memory_format=torch.contiguous_format), (x.shape[0], 20, 6)),
        _heads,
    ),
    "transpose": Op(lambda x: ops.transpose(x, 1, 2), lambda x: x.transpose(1, 2), _heads),
    "heads": Op(
        lambda x: ops.heads(x, 6), lambda x: x.view(*x.shape[:2], 4, 6).transpose(1, 2), _hidden,
        layouts=("contiguous", "leaf", "expanded"),  # a product's output
    ),
    "by_head": Op(lambda x: ops.by_head(x, 6), lambda x: x.view(*x.shape[:2], -1, 6), _hidden),
    "expand": Op(
        lambda x: ops.expand(x, (x.shape[0], 3, 5, 6)), lambda x: x.expand(-1, 3, -1, -1), lambda b: ((b, 1, 5, 6),)
    ),
    "pick, and more": Op(
        lambda x: silu(ops.pick(x, 2)), lambda x: torch.nn.functional.silu(x[:, :, [0]]), _heads, views=False
    ),
    "indexed, and more": Op(
        lambda x, index: silu(ops.indexed(x, index, 0)), lambda x, index: torch.nn.functional.silu(x[index]), _heads,
        lambda b: (((3,), "int64"),), layouts=("contiguous", "leaf"), views=False,  # tokens, end to end
    ),
    "indexed, by a matrix": Op(
        lambda x, index: ops.indexed(x, index, 0), lambda x, index: x[index], lambda b: ((b + 5, 8),),
        lambda b: (((3, 4), "int64"),), layouts=("contiguous", "leaf"), views=False,
    ),
    "contiguous": Op(ops.contiguous, torch.Tensor.contiguous, _heads, views=False),
    "contiguous, of a transposition": Op(
        lambda x: ops.contiguous(ops.transpose(x, 1, 2)), lambda x: x.transpose(1, 2).contiguous(), _heads
    ),
    "clone_contiguous": Op(
        ops.clone_contiguous, lambda x: x.clone(memory_format=torch.contiguous_format), _heads
    ),
    "clone": Op(ops.clone, torch.clone, _heads),
    "narrow": Op(lambda x: ops.narrow(x, 3, 3), lambda x: x[..., :3], _heads),
    "narrow, a middle dim": Op(lambda x: ops.narrow(x, 1, 2), lambda x: x[:, 1:3], _heads),
    "narrow, all of it": Op(lambda x: ops.narrow(x, 3, 6), lambda x: x[..., :6], _heads),
    "cut": Op(lambda x: ops.cut(x, 0, 1), lambda x: x[:1], lambda b: ((b + 1, 5, 6),)),
    "cut, all of them": Op(lambda x: ops.cut(x, 0, x.shape[0]), lambda x: x[: x.shape[0]], _heads),
    "cut, all from behind": Op(lambda x: ops.cut(x, 2, x.shape[2]), lambda x: x[:, :, -9:, :], _heads),
    "every_second": Op(ops.every_second, lambda x: x[..., ::2], _heads),
    "split": Op(
        lambda x: mul(*ops.split(x, (4, 2), 3)[::-1][:1] * 2), lambda x: torch.mul(*x.split((4, 2), -1)[1:] * 2), _heads,  # noqa: E501
    ),
    "split, both used": Op(
        lambda x: mul(*ops.split(x, (12, 12), 2)), lambda x: torch.mul(*x.split((12, 12), -1)), _hidden,
    ),
    "stack": Op(lambda x, y: ops.stack((x, y), 1), lambda x, y: torch.stack((x, y), 1), _two),
    "stack, in a last dim": Op(
        lambda x, y: ops.stack((x, y), len(x.shape)), lambda x, y: torch.stack((x, y), -1), _two
    ),
    "stack, three": Op(
        lambda x, y: ops.stack((x, y, x), 3), lambda x, y: torch.stack((x, y, x), -2), _two,
    ),
    "select": Op(lambda x: ops.select(x, 2), lambda x: x[:, :, 1], _heads),
    "pad_last": Op(lambda x: ops.pad_last(x, 8), lambda x: torch.nn.functional.pad(x, (0, 2)), _heads, gradients=("expanded",)),  # noqa: E501
    "cat": Op(lambda x, y: ops.cat(x, y, 3), lambda x, y: torch.cat((x, y), -1), _two),
    "cat, wider": Op(
        lambda x, y: ops.cat(x, y, 3), lambda x, y: torch.cat((x, y), -1), _two, dtypes=("", "fp32")
    ),
    "cat, autocast": Op(
        lambda x, y: ops.cat(x, y, 3), lambda x, y: torch.cat((x, y), -1), _two, dtypes=("bf16", "fp32"), amp="bf16"
    ),
    "unbind": Op(
        lambda x: mul(*ops.unbind(x)), lambda x: torch.mul(*x), lambda b: ((2, b, 5, 6),),
    ),
    "unbind, one used": Op(
        lambda x: silu(ops.unbind(x, 1)[1]), lambda x: torch.nn.functional.silu(x.unbind(1)[1]), _heads,
    ),
    "cat, a middle dim": Op(lambda x, y: ops.cat(x, y, 2), lambda x, y: torch.cat((x, y), 2), _two),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
