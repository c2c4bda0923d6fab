"""Shapes and strides against torch's own, for whatever a model's views may make of a block."""

from collections.abc import Callable
from math import prod
from typing import Any, Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memcalc.tape import engine
from memcalc.tape.layouts import Shape, contiguous_strides, dense_strides, is_contiguous, is_dense
from memcalc.tape.ops.elementwise import broadcast
from memcalc.tape.ops.views import reshape_array, view_strides
from memcalc.tape.tape import Array, Storage, Tape, like, new, same_layout, tape
from memcalc.timeline import Timeline
from tests.strategies import shapes, views


def _strides(tensor: torch.Tensor) -> Shape:
    """Strides of the dims that have more than one entry: the others say nothing."""
    return _telling(tuple(tensor.shape), tensor.stride())


def _telling(shape: Shape, strides: Shape) -> Shape:
    return tuple(stride for size, stride in zip(shape, strides, strict=True) if size != 1)


@given(shapes())
def test_a_new_block_is_laid_out_as_torch_does(shape: Shape) -> None:
    assert contiguous_strides(shape) == torch.empty(shape, device="meta").stride()


@given(views())
def test_dense_and_contiguous_mean_what_they_mean_to_torch(x: torch.Tensor) -> None:
    shape, strides = tuple(x.shape), x.stride()
    assert is_dense(shape, strides) == torch.ops.aten.is_non_overlapping_and_dense(x)
    assert is_contiguous(shape, strides) == x.is_contiguous()


@given(views(expanded=False))
def test_a_block_like_another_keeps_the_order_of_its_dims(x: torch.Tensor) -> None:
    shape, strides = tuple(x.shape), x.stride()
    assert _telling(shape, dense_strides(shape, strides)) == _strides(torch.empty_like(x))


@given(views(expanded=False))
def test_an_element_wise_result_keeps_the_order_of_its_operands_dims(x: torch.Tensor) -> None:
    shape, strides = tuple(x.shape), x.stride()
    assert _telling(shape, dense_strides(shape, strides)) == _strides(x.to(torch.float64)) == _strides(x * 2)


@given(views(), st.data())
def test_a_view_exists_exactly_where_torch_makes_one(x: torch.Tensor, data: st.DataObject) -> None:
    target = data.draw(_factored(prod(x.shape)))
    mine = view_strides(tuple(x.shape), x.stride(), target)
    try:
        theirs = x.view(target)
    except RuntimeError:
        assert mine is None
    else:
        assert mine is not None
        assert _telling(target, mine) == _strides(theirs)


@pytest.mark.parametrize("target", [(0, 4), (2, 0, 3), (0,), (1, 0)])
def test_what_has_no_numbers_can_be_viewed_as_anything_that_has_none(target: Shape) -> None:
    assert view_strides((3, 0), (1, 1), target) == torch.empty((3, 0), device="meta").view(target).stride()


@given(views(), st.data())
def test_a_reshaped_gradient_is_a_copy_exactly_where_torch_copies(x: torch.Tensor, data: st.DataObject) -> None:
    target = data.draw(_factored(prod(x.shape)))
    array = _array(x)
    mine, theirs = reshape_array(array, target), x.reshape(target)
    copied = theirs.untyped_storage()._cdata != x.untyped_storage()._cdata
    assert (mine.storage is not array.storage) == copied
    assert (mine.shape, _telling(mine.shape, mine.strides)) == (target, _strides(theirs))


@given(shapes(), st.data())
def test_two_shapes_broadcast_as_torchs_do(shape: Shape, data: st.DataObject) -> None:
    other = data.draw(_broadcastable(shape))
    expected = tuple(torch.broadcast_shapes(shape, other))
    assert broadcast(shape, other) == broadcast(other, shape) == expected


@given(shapes(), st.data())
def test_a_gradient_is_summed_to_its_inputs_shape_as_torch_does(shape: Shape, data: st.DataObject) -> None:
    small = data.draw(_broadcastable(shape))
    given = new(shape, "fp32", "gradient")
    if shape == small:
        return
    births = len(tape.timeline.nbytes)
    mine = engine.sum_to(given, small)
    assert mine.shape == small
    dropped = len(shape) > len(small)
    summed = dropped or any(a != b for a, b in zip(shape, small, strict=True))
    assert len(tape.timeline.nbytes) - births == summed  # _sum_to sums dims that it drops even where they are 1
    assert mine.is_view == (dropped and bool(small))


@given(views(expanded=False), views(expanded=False))
def test_layouts_are_the_same_where_every_stride_that_counts_is(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.shape == y.shape:
        assert same_layout(_array(x), _array(y)) == (_strides(x) == _strides(y))


@pytest.mark.parametrize("make", [new, lambda *args: like(new(*args), "copy")], ids=["new", "like"])
def test_a_block_is_born_with_its_bytes_and_dies_with_its_last_view(make: Callable[..., Any]) -> None:
    tape.start(Timeline(), 0)
    block = make((2, 3), "bf16", "block")
    events = list(tape.timeline.events)
    seen = block.view((6,), (1,))
    del block
    assert tape.timeline.events == events
    assert tape.timeline.nbytes[seen.storage.row] == 12
    row = seen.storage.row
    del seen
    assert tape.timeline.events[-1] == ~row


def test_nothing_is_allocated_for_nothing() -> None:
    tape.start(Timeline(), 0)
    new((0, 4), "fp32", "empty")
    Storage(0, "nothing")
    assert (tape.timeline.nbytes, tape.timeline.events) == ([], [])


def test_a_fresh_tape_is_in_forward_with_gradients_on() -> None:
    fresh = Tape()
    assert (fresh.grad, fresh.in_backward, fresh.frame, fresh.autocast) == (True, False, None, None)


_FACTORS: Final = (1, 2, 3, 4, 5, 6)


@st.composite
def _factored(draw: st.DrawFn, count: int) -> Shape:
    """A shape of `count` elements."""
    sizes: list[int] = []
    while count > 1:
        divisors = [factor for factor in (*_FACTORS, count) if count % factor == 0 and factor > 1]
        size = draw(st.sampled_from(divisors))
        sizes.append(size)
        count //= size
    for _ in range(draw(st.integers(0, 2))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return tuple(draw(st.permutations(sizes)))


@st.composite
def _broadcastable(draw: st.DrawFn, shape: Shape) -> Shape:
    """A shape that broadcasts to `shape`."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(1 if draw(st.booleans()) else size for size in kept)


def _array(x: torch.Tensor) -> Array:
    return Array(Storage(4 * prod(x.shape), "block"), tuple(x.shape), x.stride(), "fp32")
