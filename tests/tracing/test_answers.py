from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from memcalc.tracing.answers import Answers, is_answerable

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


def _look(x: torch.Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.stride(), x.untyped_storage().nbytes(), x.storage_offset()


def _asked_twice(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """What is answered the second time, after the kernel itself was asked."""
    answers = Answers()
    first = answers.ask(func, func, args, kwargs)
    second: torch.Tensor = answers.ask(func, func, args, kwargs)
    assert _look(second) == _look(first)
    return second


@given(pairs())
def test_element_wise_results_look_the_same_twice(pair: tuple[torch.Tensor, Any]) -> None:
    for func in (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor):
        _asked_twice(func, *pair)


@given(tensors(least=2))
def test_results_of_one_input_look_the_same_twice(x: torch.Tensor) -> None:
    for func in (aten.neg.default, aten.rsqrt.default, aten.zeros_like.default, aten.clone.default):
        _asked_twice(func, x)
    _asked_twice(aten.cat.default, [x, x], -1)
    _asked_twice(aten.sum.dim_IntList, x, [0], keepdim=True)
    _asked_twice(aten._to_copy.default, x, dtype=torch.float64)


def test_a_kernel_is_asked_once_for_each_look() -> None:
    asked: list[torch.Size] = []

    def kernel(x: torch.Tensor, y: object) -> torch.Tensor:
        asked.append(x.shape)
        return aten.mul.Tensor(x, y)

    answers = Answers()
    x = torch.empty(2, 3, device="meta", dtype=torch.int64)
    for args in ((x, 2), (x + 1, 2), (x, 2.0), (x.t(), 2), (x, True)):
        out = answers.ask(aten.mul.Tensor, kernel, args, {})
        assert out.dtype == (torch.float32 if isinstance(args[1], float) else torch.int64)
    assert len(asked) == 4


def test_what_may_stand_for_a_number_is_left_to_the_kernel() -> None:
    asked: list[torch.dtype] = []

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked.append(y.dtype)
        return aten.mul.Tensor(x, y)

    answers, x = Answers(), torch.empty(2, device="meta")
    for _ in range(2):
        answers.ask(aten.mul.Tensor, kernel, (x, torch.empty((), device="meta")), {})
    assert len(asked) == 2


def test_an_operator_that_may_return_its_argument_is_asked_again() -> None:
    answers, x = Answers(), torch.empty(2, 3, device="meta")
    for _ in range(2):
        out = answers.ask(aten._unsafe_view.default, aten._unsafe_view.default, (x, [6]), {})
        assert out.untyped_storage()._cdata == x.untyped_storage()._cdata


@pytest.mark.parametrize(
    ("func", "answerable"),
    [
        (aten.mul.Tensor, True),
        (aten.mul_.Tensor, False),
        (aten.view.default, False),
        (aten.native_layer_norm.default, False),
        (aten.lift_fresh.default, False),
    ],
)
def test_only_what_makes_one_new_tensor_is_answered(func: Any, answerable: bool) -> None:
    assert is_answerable(func) is answerable
