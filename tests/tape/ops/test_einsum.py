"""What torch.einsum makes of its equations, against torch on meta."""

from collections.abc import Callable
from typing import Final

import pytest
import torch

from memcalc.tape.ops import einsum as ops
from memcalc.tape.tape import Tensor
from tests.tape.side_by_side import Op, assert_same, without_row


def _by_block(x: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...rk,rkc->...rc", x, blocks)


def _weighted(weights: Tensor, x: Tensor) -> Tensor:
    return ops.contracted(weights, x, "e,eio->io")


def _weighted_in_torch(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("e,eio->io", weights, x)


def _of_mixture(x: Tensor, y: Tensor) -> Tensor:
    return ops.contracted(x, y, "bqs,qsdr->bqdr")


def _of_mixture_in_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bqs,qsdr->bqdr", x, y)


def _mixtures(q: int, s: int) -> Callable[[int], tuple[tuple[int, ...], ...]]:
    return lambda b: ((b, q, s), (q, s, 6, 4))


OPS: Final = {
    "weighted": Op(_weighted, _weighted_in_torch, lambda b: ((b + 1,), (b + 1, 4, 8)), layouts=("contiguous", "leaf")),
    "weighted, autocast": Op(
        _weighted, _weighted_in_torch, lambda b: ((b + 1,), (b + 1, 4, 8)), layouts=("contiguous", "leaf"), amp="bf16",
        over=("bf16", "fp32"),
    ),
    **{
        f"contracted, {q} of {s}, autocast {amp}": Op(
            _of_mixture,
            _of_mixture_in_torch,
            _mixtures(q, s),
            layouts=(("contiguous", "leaf"),) * 2,
            amp=amp,
            over=("bf16", "fp32"),
        )
        for q, s in ((1, 4), (2, 4), (2, 1), (1, 1))
        for amp in ("none", "bf16")
    },
    "by_block": Op(
        ops.by_block, _by_block, lambda b: ((b, 5, 4, 8), (4, 8, 8)), layouts=(("contiguous", "leaf"),) * 2
    ),
    "by_block, autocast": Op(
        ops.by_block, _by_block, lambda b: ((b, 5, 4, 8), (4, 8, 6)), layouts=(("contiguous", "leaf"),) * 2,
        amp="bf16", over=("bf16", "fp32"),
    ),
    "by_block, one block": Op(
        ops.by_block, _by_block, lambda b: ((b, 5, 1, 8), (1, 8, 8)), layouts=(("contiguous", "leaf"),) * 2
    ),
    "by_block, of single numbers": Op(
        ops.by_block, _by_block, lambda b: ((b, 5, 4, 1), (4, 1, 1)), layouts=(("contiguous", "leaf"),) * 2
    ),
    "by_block, of single numbers, autocast": Op(
        ops.by_block, _by_block, lambda b: ((b, 5, 4, 1), (4, 1, 1)), layouts=(("contiguous", "leaf"),) * 2,
        amp="bf16", over=("bf16", "fp32"),
    ),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
