"""What autocast casts, and how long the copies of weights live."""

from typing import Any, Final

import pytest
import torch
from torch.nn import functional as F

from memcalc.tape.autocast import autocast, lower, upper
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.elementwise import add, cast, mul, rsqrt, scale, silu, square
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Leaf, Tensor, new, tape
from memcalc.timeline import Timeline
from tests.tape.side_by_side import Op, assert_same


def _square(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (8, 8))


def _twice_here(x: Tensor, w: Tensor) -> Tensor:
    hidden = linear(x, w)
    return linear(hidden, w)


def _twice(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    hidden = F.linear(x, w)
    return F.linear(hidden, w)


def _mixed_here(x: Tensor, w: Tensor) -> Tensor:
    return add(linear(x, w), rsqrt(square(silu(x))))


def _mixed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w) + torch.rsqrt(F.silu(x).pow(2))


_GIVEN: Final[dict[str, Any]] = {"amp": "bf16", "over": ("bf16", "fp32"), "layouts": ("contiguous", "leaf")}

OPS: Final = {
    "a weight is cast once": Op(_twice_here, _twice, _square, **_GIVEN),
    "a half-precision weight of another dtype is cast each time": Op(
        _twice_here, _twice, _square, dtypes=("fp32", "fp16"), **_GIVEN
    ),
    "powers are raised": Op(_mixed_here, _mixed, _square, **_GIVEN),
}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_is_torchs(op: Op) -> None:
    assert_same(op)


@pytest.fixture(autouse=True)
def _fresh_tape() -> None:
    tape.start(Timeline(), 0)


def _weight(dtype: str = "fp32", *, trained: bool = True) -> Tensor:
    array = new((4, 8), dtype, "weight", "weights")
    return Tensor(array, Leaf(array, "gradients") if trained else None)


def _casts() -> int:
    return [op for _, op in tape.timeline.labels].count("to")


def _alive() -> list[str]:
    timeline = tape.timeline
    return [timeline.labels[row][1] for row in timeline.alive_at(len(timeline.events))]


def test_a_trained_weights_copy_lives_until_the_region_ends() -> None:
    weight = _weight()
    with autocast("bf16"):
        assert lower(weight) is lower(weight)
        assert _alive() == ["weight", "to"]
    assert _alive() == ["weight"]
    with autocast("bf16"):
        lower(weight)
    assert _casts() == 2  # each region has its own copies


@pytest.mark.parametrize("weight", [{"trained": False}, {"dtype": "fp16"}], ids=["frozen", "half precision"])
def test_other_weights_are_cast_each_time(weight: dict[str, Any]) -> None:
    w = _weight(**weight)
    with autocast("bf16"):
        lower(w)
        lower(w)
        assert _alive() == ["weight"]
    assert _casts() == 2


def test_a_copy_that_backward_needs_outlives_the_region() -> None:
    weight, x = _weight(), scale(_weight())
    with autocast("bf16"):
        out = linear(x, weight)
    assert _alive().count("to") == 2
    del out
    assert "to" not in _alive()


def test_copies_of_weights_are_workspace_and_casts_of_activations_are_not() -> None:
    with autocast("bf16"):
        linear(scale(_weight()), _weight())
    timeline = tape.timeline
    pairs = zip(timeline.labels, timeline.categories, strict=True)
    assert [category for (_, op), category in pairs if op == "to"] == ["activations", "workspace"]


def test_an_error_ends_the_region() -> None:
    with pytest.raises(ZeroDivisionError), autocast("bf16"):
        raise ZeroDivisionError
    assert tape.autocast is None


def test_outside_of_a_region_nothing_is_cast() -> None:
    weight = _weight("bf16")
    with autocast("none"):
        assert lower(weight) is weight
        assert upper(weight) is weight
    assert upper(weight) is weight
    assert cast(weight, "bf16") is weight


def test_what_has_the_dtype_already_is_left_alone() -> None:
    with autocast("bf16"):
        half, full = _weight("bf16"), _weight("fp32")
        assert lower(half) is half
        assert upper(full) is full
        assert mul(upper(half), full).dtype == "fp32"
