"""Lookup, softmax and the cross-entropy's parts against torch on meta."""

from typing import Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import loss as ops
from tests.tape.side_by_side import Op, assert_same, without_row


def _scores(b: int) -> tuple[Shape, ...]:
    return ((b, 3, 5, 8),)


def _logits(b: int) -> tuple[Shape, ...]:
    return ((b * 5, 16),)


_DENSE: Final = ("contiguous", "leaf")

OPS: Final = {
    "embedding": Op(
        lambda w, ids: ops.embedding(ids, w), lambda w, ids: F.embedding(ids, w), lambda _: ((16, 8),),
        lambda b: (((b, 5), "int64"),),
    ),
    "embedding, many tokens": Op(
        lambda w, ids: ops.embedding(ids, w), lambda w, ids: F.embedding(ids, w), lambda _: ((16, 8),),
        lambda b: (((b, 3500), "int64"),),
    ),
    "softmax_fp32": Op(ops.softmax_fp32, lambda x: F.softmax(x, -1, dtype=torch.float32), _scores, layouts=_DENSE),
    "softmax": Op(ops.softmax, lambda x: F.softmax(x, -1), _scores, layouts=_DENSE),
    "softmax, autocast": Op(
        ops.softmax, lambda x: F.softmax(x, -1), _scores, amp="bf16", over=("bf16", "fp32"), layouts=_DENSE,
    ),
    "softmax_to, fp32": Op(
        lambda x: ops.softmax_to(x, "fp32"), lambda x: F.softmax(x, -1, dtype=torch.float32), _scores, layouts=_DENSE,
    ),
    "softmax_to, bf16": Op(
        lambda x: ops.softmax_to(x, "bf16"), lambda x: F.softmax(x, -1, dtype=torch.bfloat16), _scores, layouts=_DENSE,
    ),
    "safe_softmax": Op(
        ops.safe_softmax, lambda x: torch.ops.aten._safe_softmax(x, -1), _scores, over=("fp32",), layouts=_DENSE,
    ),
    "log_softmax": Op(ops.log_softmax, lambda x: F.log_softmax(x, -1), _logits, over=("fp32",), layouts=_DENSE),
    "nll_losses": Op(
        ops.nll_losses, lambda x, y: F.nll_loss(x, y, reduction="none"), _logits, lambda b: (((b * 5,), "int64"),),
        over=("fp32", "bf16"), layouts=_DENSE,
    ),
    "nll_losses, autocast": Op(
        ops.nll_losses, lambda x, y: F.nll_loss(x, y, reduction="none"), _logits, lambda b: (((b * 5,), "int64"),),
        amp="bf16", over=("bf16",), layouts=_DENSE,
    ),
    "nll_loss": Op(ops.nll_loss, F.nll_loss, _logits, lambda b: (((b * 5,), "int64"),), over=("fp32",), layouts=_DENSE),
    "nll_loss, autocast": Op(
        ops.nll_loss, F.nll_loss, _logits, lambda b: (((b * 5,), "int64"),), amp="bf16", over=("bf16",), layouts=_DENSE,
    ),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
