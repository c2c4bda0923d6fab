"""The inverse Fourier transform against torch on meta."""

from typing import Final

import pytest
import torch

from memcalc.tape.ops import fourier as ops
from memcalc.tape.ops.elementwise import scale
from tests.tape.side_by_side import Op, assert_same

OPS: Final = {
    "inverse_fft and real": Op(
        lambda x: scale(ops.real(ops.inverse_fft(x))),
        lambda x: torch.fft.ifft2(x).real * 150.0,
        lambda b: ((b + 3, 8),),
        over=("fp32",),
        layouts=("contiguous", "leaf"),
    )
}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
