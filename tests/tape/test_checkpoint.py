"""Checkpointed calls: what is thrown away, what is recomputed, and when it dies."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings

from memcalc.tape import engine
from memcalc.tape.autocast import autocast
from memcalc.tape.checkpoint import checkpoint, checkpoint_reentrant
from memcalc.tape.ops.elementwise import add, scale, silu, square
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Leaf, Tensor, new, tape
from memcalc.timeline import Timeline
from tests.tape.programs import Program, Step, assert_same, programs
from tests.tape.side_by_side import cuda_like

Run = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]

MODES: Final = ("non-reentrant", "reentrant")
BOTH: Final = pytest.mark.parametrize("run", [checkpoint, checkpoint_reentrant], ids=MODES)
_LEAF: Final = (("fp32", True),)
_BEFORE: Final = (Step("scale", (0,)),)  # of a layer: its variable 0 is this one, 1 the leaf

PROGRAMS: Final = {
    "one op": Program(_LEAF, _BEFORE, (1,), (Step("silu", (0,)),), (2,)),
    "its last op saves nothing": Program(_LEAF, _BEFORE, (1,), (Step("silu", (0,)), Step("shift", (2,))), (3,)),
    "its last op saves its result": Program(_LEAF, _BEFORE, (1,), (Step("silu", (0,)), Step("rsqrt", (2,))), (3,)),
    "it saves nothing at all": Program(_LEAF, _BEFORE, (1,), (Step("scale", (0,)), Step("shift", (2,))), (3,)),
    "a local dies early": Program(
        _LEAF, _BEFORE, (1,), (Step("silu", (0,)), Step("square", (2,), (2,)), Step("rsqrt", (3,), (3,))), (4,)
    ),
    "two results": Program(_LEAF, _BEFORE, (1, 2), (Step("silu", (0,)), Step("square", (2,))), (2, 3)),
    "two results, one of them differentiated": Program(
        _LEAF, _BEFORE, (2,), (Step("silu", (0,)), Step("square", (2,))), (2, 3)
    ),
    "a weight inside": Program(_LEAF, _BEFORE, (1,), (Step("mul", (0, 1)), Step("mul", (2, 1))), (3,)),
    "its input is a view": Program(
        _LEAF, (*_BEFORE, Step("transpose", (1,), (1,))), (2,), (Step("silu", (0,)), Step("add", (0, 2))), (3,)
    ),
    "its input is frozen": Program(
        (("fp32", False), ("fp32", True)), (Step("scale", (0,)),), (2,), (Step("silu", (0,)), Step("mul", (3, 2))), (4,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_it_is_torchs(program: Program, mode: str) -> None:
    with cuda_like():
        assert_same(program, mode)


@pytest.mark.parametrize("mode", MODES)
def test_random_layers_are_recomputed_as_torch_does_it(mode: str) -> None:
    @settings(max_examples=100)
    @given(programs(layer=True))
    def check(program: Program) -> None:
        assert_same(program, mode)

    with cuda_like():
        check()


@pytest.fixture(autouse=True)
def _fresh_tape() -> None:
    tape.start(Timeline(), 0)


def _leaf(*shape: int, dtype: str = "fp32") -> Tensor:
    array = new(shape, dtype, "leaf")
    return Tensor(array, Leaf(array, "gradients"))


def _births(op: str, since: int = 0) -> int:
    return [name for _, name in tape.timeline.labels[since:]].count(op)


def _differentiate(out: Tensor) -> int:
    """Returns the number of rows before the backward."""
    gradient = new(out.shape, out.dtype, "gradient")
    before = len(tape.timeline.nbytes)
    engine.backward([out], [gradient])
    return before


def _deep(x: Tensor) -> Tensor:
    return scale(square(silu(x)))


def test_only_the_input_is_kept_between_forward_and_backward() -> None:
    x = scale(_leaf(8, 8))
    kept = len(tape.timeline.alive_at(len(tape.timeline.events)))
    out = checkpoint(_deep, x)
    assert len(tape.timeline.alive_at(len(tape.timeline.events))) == kept + 1
    del x
    assert len(tape.timeline.alive_at(len(tape.timeline.events))) == kept + 1
    _differentiate(out)


@pytest.mark.parametrize(("run", "powers"), [(checkpoint, 1), (checkpoint_reentrant, 2)], ids=MODES)
def test_recomputation_stops_at_the_last_save_unless_it_is_reentrant(run: Run, powers: int) -> None:
    """The square saves its input: to have that, the square itself need not run again. Its backward has a power too."""
    before = _differentiate(run(_deep, scale(_leaf(8, 8))))
    assert (_births("silu", before), _births("pow", before)) == (1, powers)


def test_a_call_that_saves_its_input_alone_is_never_run_again() -> None:
    before = _differentiate(checkpoint(lambda h: add(h, silu(h)), scale(_leaf(8, 8))))
    assert _births("silu", before) == 0


@BOTH
def test_without_gradients_the_call_is_just_made(run: Run) -> None:
    tape.grad = False
    out = run(_deep, scale(_leaf(8, 8)))
    assert (out.node, _births("silu"), tape.frame) == (None, 1, None)
    tape.grad = True


def test_a_reentrant_call_over_a_frozen_input_keeps_what_it_saves() -> None:
    weight = _leaf(4, 8)
    frozen = Tensor(new((2, 8), "fp32", "frozen"))
    _differentiate(checkpoint_reentrant(lambda x: linear(silu(x), weight), frozen))
    assert _births("silu") == 1


@BOTH
def test_it_is_recomputed_under_the_autocast_it_ran_under(run: Run) -> None:
    weight, x = _leaf(4, 8), scale(_leaf(2, 8))
    with autocast("bf16"):
        out = run(lambda h: silu(linear(h, weight)), x)
    before = _differentiate(out)
    rows = zip(tape.timeline.labels[before:], tape.timeline.nbytes[before:], strict=True)
    casts = [nbytes for (_, op), nbytes in rows if op == "to"]
    assert casts[:2] == [2 * 8 * 2, 4 * 8 * 2]  # the input and the weight, in bf16 again


@BOTH
def test_an_error_in_the_recomputation_leaves_the_tape_as_it_was(run: Run) -> None:
    calls: list[int] = []

    def fails_the_second_time(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return silu(x)

    out = run(fails_the_second_time, scale(_leaf(8, 8)))
    with pytest.raises(ZeroDivisionError):
        _differentiate(out)
    assert (tape.frame, tape.grad, tape.in_backward) == (None, True, False)
    assert len(calls) == 2
