"""Attention's kernels against torch's own operators on meta, as the stand-ins make them CUDA's."""

from functools import partial
from typing import Any, Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape import attending
from memcalc.tape.attending import Attention
from memcalc.tape.layouts import Shape
from memcalc.tape.ops import attention as ops
from memcalc.tape.ops.views import transpose
from memcalc.tape.tape import Array, Tensor
from memcalc.tracing.flash_library import flash_attn_func
from tests.tape.side_by_side import GPU, Op, assert_same, without_row


def _qkv(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 30, 16),) * 3


def _grouped(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 30, 16), (b, 2, 30, 16), (b, 2, 30, 16))


def _odd(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 30, 12),) * 3


def _mask(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 1, 30, 30), "bool"),)


def _aligned(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 1, 32, 32), "bool"),)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, **more: Any) -> Any:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1], **more
    )


def _seen_by_position(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))


def _flash_library(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ops.flash_library(_CARD, transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2))


class _Model:
    """What math attention asks of a builder."""

    def __init__(self, dropout: float) -> None:
        self.attention, self.training = Attention("sdpa", GPU, "math", dropout), True


def _math(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None, dropout: float = 0.0) -> Tensor:
    model: Any = _Model(dropout)
    return attending.math_attention(model, q, k, v, mask)


_CARD: Final = Attention("sdpa", GPU)
_HALF: Final = ("bf16", "fp16")
# What comes before attention leaves its inputs as (b, s, heads, d), or writes them out in order.
_AS_IN_MODELS: Final = ("contiguous", "leaf")

OPS: Final = {
    "flash": Op(partial(ops.flash, _CARD), _sdpa, _qkv, over=_HALF, layouts=_AS_IN_MODELS, pinned="flash"),
    "flash, fewer K/V heads": Op(
        partial(ops.flash, _CARD), _sdpa, _grouped, over=_HALF, layouts=_AS_IN_MODELS, pinned="flash"
    ),
    "flash, padded heads": Op(
        partial(ops.flash, _CARD), _sdpa, _odd, over=_HALF, layouts=_AS_IN_MODELS, gradients=("expanded",),
        pinned="flash",
    ),
    "flash, dropout": Op(
        partial(ops.flash, Attention("sdpa", GPU, dropout=0.1)), partial(_sdpa, dropout_p=0.1), _qkv, over=_HALF,
        layouts=_AS_IN_MODELS, pinned="flash",
    ),
    "efficient": Op(
        lambda q, k, v: ops.efficient(_CARD, q, k, v, None), _sdpa, _qkv, layouts=_AS_IN_MODELS, pinned="efficient"
    ),
    "efficient, masked": Op(
        partial(ops.efficient, _CARD), _sdpa, _qkv, _mask, layouts=_AS_IN_MODELS, pinned="efficient"
    ),
    "efficient, aligned mask": Op(
        partial(ops.efficient, _CARD), _sdpa, lambda b: ((b, 4, 32, 16),) * 3, _aligned, layouts=_AS_IN_MODELS,
        pinned="efficient",
    ),
    # Where no gradient is wanted meta has logsumexp nevertheless, CUDA has not.
    "cudnn": Op(
        lambda q, k, v: ops.cudnn(q, k, v, None), _sdpa, _qkv, over=_HALF, layouts=_AS_IN_MODELS, pinned="cudnn",
        untrained=False,
    ),
    "cudnn, masked": Op(
        ops.cudnn, _sdpa, _qkv, _mask, over=_HALF, layouts=_AS_IN_MODELS, pinned="cudnn", untrained=False
    ),
    "flash_library": Op(_flash_library, _seen_by_position, _grouped, over=_HALF, layouts=_AS_IN_MODELS),
    "flash_library, padded heads": Op(
        _flash_library, _seen_by_position, _odd, over=_HALF, layouts=_AS_IN_MODELS, gradients=("expanded",)
    ),
    "math": Op(_math, _sdpa, _qkv, layouts=_AS_IN_MODELS, pinned="math"),
    "math, fewer K/V heads": Op(_math, _sdpa, _grouped, layouts=_AS_IN_MODELS, pinned="math"),
    "math, masked": Op(_math, _sdpa, _qkv, _mask, layouts=_AS_IN_MODELS, pinned="math"),
    "math, dropout": Op(
        partial(_math, dropout=0.1), partial(_sdpa, dropout_p=0.1), _qkv, layouts=_AS_IN_MODELS, pinned="math"
    ),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert not without_row(ops, OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_torch_does(op: Op) -> None:
    assert_same(op)
