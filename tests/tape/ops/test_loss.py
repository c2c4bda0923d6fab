"""Lookup, softmax and the cross-entropy's parts against torch on meta."""



from typing import Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.ops import loss as ops
from tests.tape.side_by_side import Op, Shape, assert_same


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
    "softmax in fp32": Op(ops.softmax_fp32, lambda x: F.softmax(x, -1, dtype=torch.float32), _scores, layouts=_DENSE),
    "softmax without empty rows": Op(
        ops.safe_softmax, lambda x: torch.ops.aten._safe_softmax(x, -1), _scores, over=("fp32",), layouts=_DENSE,
    ),
    "log-softmax": Op(ops.log_softmax, lambda x: F.log_softmax(x, -1), _logits, over=("fp32",), layouts=_DENSE),
    "nll": Op(ops.nll_loss, F.nll_loss, _logits, lambda b: (((b * 5,), "int64"),), over=("fp32",), layouts=_DENSE),
    "nll, autocast": Op(
        ops.nll_loss, F.nll_loss, _logits, lambda b: (((b * 5,), "int64"),), amp="bf16", over=("bf16",), layouts=_DENSE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
