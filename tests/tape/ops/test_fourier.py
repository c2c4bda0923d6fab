"""Fourier transforms against torch on meta."""

from typing import Final

import pytest
import torch
from peft.tuners.c3a.utils import BlockCircularConvolution

from memcalc.tape.ops import fourier as ops
from memcalc.tape.ops.elementwise import divide, scale
from tests.tape.side_by_side import Op, assert_same, without_row


def _circular(rows: int, m: int, n: int) -> Op:
    return Op(
        lambda x, kernels: divide(ops.circular(x, kernels)),
        lambda x, kernels: BlockCircularConvolution.apply(x, kernels) / 3,
        lambda b: ((b, rows, 4 * n), (m, n, 4)),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
    )


OPS: Final = {
    "inverse_fft and real": Op(
        lambda x: scale(ops.real(ops.inverse_fft(x))),
        lambda x: torch.fft.ifft2(x).real * 150.0,
        lambda b: ((b + 3, 8),),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
    ),
    **{f"circular, {m} x {n}": _circular(5, m, n) for m in (1, 2) for n in (1, 3)},
    "circular, of one row": _circular(1, 2, 3),
}


def test_every_op_has_a_row() -> None:
    assert without_row(ops, OPS) == {"inverse_fft", "real"}  # both in one


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
