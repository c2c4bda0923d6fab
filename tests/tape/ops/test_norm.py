"""Layer normalisation against torch on meta, for every requires-grad combination of its inputs."""

from typing import Final

import pytest
from torch.nn import functional as F

from memcalc.tape.layouts import Shape
from memcalc.tape.ops import norm as ops
from tests.tape.side_by_side import Op, assert_same, without_row


def _biased(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (8,), (8,))


_DENSE: Final = ("contiguous", "leaf")
_CONTIGUOUS: Final = ("expanded",)  # meta lays x's gradient out as what comes back, CUDA as x

OPS: Final = {
    "layer_norm": Op(
        ops.layer_norm,
        lambda x, w, bias: F.layer_norm(x, (8,), w, bias),
        _biased,
        layouts=_DENSE,
        gradients=_CONTIGUOUS,
    ),
    "layer_norm, autocast": Op(
        ops.layer_norm,
        lambda x, w, bias: F.layer_norm(x, (8,), w, bias),
        _biased,
        layouts=_DENSE,
        gradients=_CONTIGUOUS,
        amp="bf16",
        over=("fp32", "bf16"),
    ),
    "layer_norm, in fp32 over half": Op(
        ops.layer_norm,
        lambda x, w, bias: F.layer_norm(x, (8,), w, bias),
        _biased,
        layouts=_DENSE,
        gradients=_CONTIGUOUS,
        amp="bf16",
        dtypes=("", "fp32", "fp32"),
    ),
}


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
