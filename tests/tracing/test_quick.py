from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from memcalc.tracing.quick import QUICK

aten = torch.ops.aten
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@st.composite
def tensors(draw: st.DrawFn, *, least: int = 1) -> torch.Tensor:
    """A meta tensor of any layout: contiguous, transposed, or with a stretched dimension."""
    shape = draw(st.lists(st.integers(1, 4), min_size=least, max_size=4))
    x = torch.empty(shape, dtype=draw(DTYPES), device="meta")
    if len(shape) > 1 and draw(st.booleans()):
        first, second = draw(st.permutations(range(len(shape))))[:2]
        x = x.transpose(first, second)
    return x


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, Any]:
    """A tensor, and one that goes with it: a number, or a tensor of the same or a broadcast shape."""
    x = draw(tensors())
    if draw(st.booleans()):
        return x, draw(st.sampled_from([2, 0.5]))
    shape = [size if draw(st.booleans()) else 1 for size in x.shape]
    shape = shape[draw(st.integers(0, len(shape) - 1)) :]
    y = torch.empty(shape, dtype=x.dtype if draw(st.booleans()) else draw(DTYPES), device="meta")
    return (x, y) if draw(st.booleans()) else (y, x)


def _same(quick: torch.Tensor | None, real: torch.Tensor) -> None:
    if quick is not None:
        assert (quick.shape, quick.dtype, quick.stride()) == (real.shape, real.dtype, real.stride())


@given(pairs())
def test_element_wise_results_are_those_of_the_kernels(pair: tuple[torch.Tensor, Any]) -> None:
    for op in (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor):
        _same(QUICK[op](*pair), op(*pair))


@given(tensors())
def test_results_like_their_input_are_those_of_the_kernels(x: torch.Tensor) -> None:
    for op in (aten.neg.default, aten.rsqrt.default, aten.silu.default, aten.zeros_like.default):
        _same(QUICK[op](x), op(x))
    _same(QUICK[aten.pow.Tensor_Scalar](x, 2), x.pow(2))
    _same(QUICK[aten.mean.dim](x, [-1], True), x.mean(-1, keepdim=True))


@given(tensors(least=2), st.integers(1, 4))
def test_products_are_those_of_the_kernels(x: torch.Tensor, n: int) -> None:
    if x.dim() in (2, 3):
        op = aten.mm.default if x.dim() == 2 else aten.bmm.default
        y = torch.empty((*x.shape[:-2], x.shape[-1], n), dtype=x.dtype, device="meta")
        _same(QUICK[op](x, y), op(x, y))


@pytest.mark.parametrize("other", [torch.ones(3), 2 + 1j, True])
def test_a_doubtful_case_is_left_to_the_kernel(other: Any) -> None:
    assert QUICK[aten.mul.Tensor](torch.empty(2, 3, device="meta"), other) is None
