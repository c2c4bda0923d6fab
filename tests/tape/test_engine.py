"""The order in which gradients arrive, who may be added into, and what a leaf steals."""

from typing import Final

import pytest
from hypothesis import given, settings

from memcalc.tape import engine
from memcalc.tape.checkpoint import checkpoint_reentrant
from memcalc.tape.ops.elementwise import add, scale, silu
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Array, Leaf, Tensor, new, record, tape
from memcalc.timeline import Timeline
from tests.tape.programs import Program, Step, assert_same, here, programs
from tests.tape.side_by_side import cuda_like

_LEAF: Final = (("fp32", True),)
_TWO: Final = (("fp32", True), ("bf16", True))


def _program(*steps: Step, leaves: tuple[tuple[str, bool], ...] = _LEAF, roots: tuple[int, ...] = ()) -> Program:
    return Program(leaves, steps, roots or (len(leaves) + len(steps) - 1,))


PROGRAMS: Final = {
    "the youngest ready node runs first": _program(
        Step("silu", (0,)), Step("square", (1,)), Step("rsqrt", (1,)), Step("add", (2, 3)), Step("mul", (1, 4))
    ),
    "a gradient that nobody else holds is added into": _program(
        Step("scale", (0,)), Step("silu", (1,)), Step("square", (1,)), Step("mul", (2, 3))
    ),
    "a gradient that two inputs share is not added into": _program(
        Step("scale", (0,)), Step("silu", (1,)), Step("add", (1, 2)), Step("add", (1, 3))
    ),
    "a gradient is not added into itself": _program(Step("scale", (0,)), Step("add", (1, 1)), Step("add", (2, 2))),
    "a gradient seen through a view is not added into": _program(
        Step("scale", (0,)), Step("halves", (1, 1)), Step("silu", (1,)), Step("add", (2, 3))
    ),
    "a gradient that was added lives until its node's others are handed on": _program(
        Step("scale", (0,)), Step("scale", (0,)), Step("scale", (0,)), Step("mul", (1, 2)), Step("silu", (1,)),
        Step("add", (2, 3)), Step("add", (4, 5)), Step("add", (7, 6)),
    ),
    "a transposed gradient that is dense is added into": _program(
        Step("transpose", (0,)), Step("silu", (1,)), Step("square", (1,)), Step("add", (2, 3))
    ),
    "a leaf waits for all of its gradients": _program(Step("silu", (0,)), Step("mul", (0, 1)), Step("mul", (0, 2))),
    "a leaf steals a gradient of its own layout": _program(Step("silu", (0,))),
    "a leaf copies a gradient of another layout": _program(Step("transpose", (0,)), Step("silu", (1,))),
    "a leaf copies a gradient that the caller holds": _program(Step("shift", (0,))),
    "a gradient is cast for the input that is narrower": _program(Step("mul", (0, 1)), leaves=_TWO),
    "two roots": _program(Step("silu", (0,)), Step("square", (1,)), Step("square", (1,)), roots=(2, 3)),
    "a root that leads to the other": _program(Step("silu", (0,)), Step("square", (1,)), roots=(2, 1)),
    "a branch without a gradient": _program(Step("silu", (0,)), Step("mul", (0, 2)), leaves=(("fp32", False), *_TWO)),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_it_is_torchs(program: Program) -> None:
    with cuda_like():
        assert_same(program)


@pytest.mark.parametrize(
    ("name", "additions"),
    [
        ("a gradient that nobody else holds is added into", 0),
        ("a gradient that two inputs share is not added into", 1),
        ("a gradient is not added into itself", 2),
        ("a transposed gradient that is dense is added into", 0),
    ],
)
def test_an_addition_in_place_is_no_birth(name: str, additions: int) -> None:
    timeline, _ = here(PROGRAMS[name])
    backward = timeline.labels[timeline.labels.index(("", "gradient")) :]
    assert backward.count(("", "add")) == additions


def test_random_programs_are_differentiated_as_torch_does_it() -> None:
    @settings(max_examples=150)
    @given(programs())
    def check(program: Program) -> None:
        assert_same(program)

    with cuda_like():
        check()


def _leaf(*shape: int) -> Tensor:
    array = new(shape, "fp32", "leaf")
    return Tensor(array, Leaf(array, "gradients"))


def _differentiate(out: Tensor) -> None:
    engine.backward([out], [new(out.shape, out.dtype, "gradient")])


def _grad(leaf: Tensor) -> Array | None:
    assert isinstance(leaf.node, Leaf)
    return leaf.node.grad


@pytest.fixture(autouse=True)
def _fresh_tape() -> None:
    tape.start(Timeline(), 0)


def test_a_later_gradient_is_added_in_place_and_dies() -> None:
    leaf = _leaf(2, 3)
    _differentiate(silu(leaf))
    first = _grad(leaf)
    assert first is not None
    alive = tape.timeline.alive_at(len(tape.timeline.events))
    _differentiate(silu(leaf))
    assert _grad(leaf) is first
    assert tape.timeline.alive_at(len(tape.timeline.events)) == alive


def test_a_gradient_takes_its_leafs_category_and_a_workspace_is_each_threads_own() -> None:
    tape.start(Timeline(), 100)
    x, w = _leaf(2, 3), _leaf(4, 3)
    _differentiate(linear(x, w))
    grad = _grad(w)
    assert grad is not None
    assert tape.timeline.categories[grad.storage.row] == "gradients"
    assert [label for label in tape.timeline.labels if label[1] == "cuBLAS workspace"] == [("", "cuBLAS workspace")] * 2


def test_a_graph_is_run_backward_once() -> None:
    out = silu(_leaf(2, 3))
    _differentiate(out)
    with pytest.raises(AssertionError, match="once"):
        _differentiate(out)


def test_an_error_in_the_middle_leaves_forward_as_it_was() -> None:
    def fails(g: Array) -> list[Array]:
        raise ZeroDivisionError

    leaf = _leaf(2, 3)
    out = record(new((2, 3), "fp32", "out"), (scale(leaf),), fails)
    with pytest.raises(ZeroDivisionError):
        _differentiate(out)
    assert (tape.in_backward, tape.grad) == (False, True)


def test_an_input_whose_gradient_is_undefined_still_counts_as_served() -> None:
    def nothing(g: Array) -> list[Array | None]:
        return [None]

    leaf = _leaf(2, 3)
    x = scale(leaf)
    ignored = record(new((2, 3), "fp32", "ignored"), (scale(x),), nothing)
    _differentiate(add(ignored, silu(x)))
    assert _grad(leaf) is not None


def test_an_engine_within_an_engine_does_not_count_its_edges() -> None:
    weight, x = _leaf(2, 3), _leaf(2, 3)
    inside = checkpoint_reentrant(lambda h: add(silu(h), scale(weight)), scale(x))
    _differentiate(add(inside, scale(weight)))
    assert _grad(weight) is not None
    assert _grad(x) is not None
    assert isinstance(weight.node, Leaf)
    assert weight.node.waiting <= 0


def test_a_root_that_needs_no_gradient_does_not_take_anothers() -> None:
    frozen, leaf = Tensor(new((5,), "bf16", "frozen")), _leaf(2, 3)
    out = silu(leaf)
    engine.backward([frozen, out], [new((5,), "bf16", "gradient"), new((2, 3), "fp32", "gradient")])
    grad = _grad(leaf)
    assert grad is not None
    assert grad.shape == (2, 3)
