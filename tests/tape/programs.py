"""Random programs of a few ops, run by one interpreter on the tape and on torch.

All variables are (2, 4, 4), so that any op may follow any other. The interpreter's own names keep the same tensors
alive on both sides; what differs is the library.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from hypothesis import assume, reject
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from memcalc.comparing import first_difference
from memcalc.kernels import cublas_workspace
from memcalc.tape import engine
from memcalc.tape.checkpoint import checkpoint, checkpoint_reentrant
from memcalc.tape.ops import elementwise, linear, loss, views
from memcalc.tape.tape import Leaf, Storage, Tensor, new, tape
from memcalc.timeline import Timeline
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer
from tests.tape.side_by_side import DTYPES, GPU

SHAPE: Final = (2, 4, 4)
DTYPE_OF: Final = ("fp32", "bf16")


@dataclass(frozen=True)
class Step:
    """One op over variables by number, and the variables that are let go of afterwards."""

    op: str
    args: tuple[int, ...]
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """Leaves (dtype, needs a gradient), steps, and which variables are differentiated."""

    leaves: tuple[tuple[str, bool], ...]
    steps: tuple[Step, ...]
    roots: tuple[int, ...]
    layer: tuple[Step, ...] = ()  # a checkpointed call over the first variable, after the steps
    results: tuple[int, ...] = ()  # which of the layer's variables it returns


# ---- the two libraries ---------------------------------------------------------------------------
def _halves_here(x: Tensor, y: Tensor) -> Tensor:
    return views.cat(views.narrow(x, 2, 2), views.narrow(elementwise.cast(y, x.dtype), 2, 2), 2)


def _halves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cat((x[..., :2], y.to(x.dtype)[..., 2:]), -1)


def _row_here(x: Tensor) -> Tensor:
    return views.expand(elementwise.mean(x), SHAPE)


def _row(x: torch.Tensor) -> torch.Tensor:
    return x.mean(-1, keepdim=True).expand(SHAPE)


def _folded_here(x: Tensor) -> Tensor:
    return views.view(views.reshape(x, (8, 4)), SHAPE)


def _normal_here(x: Tensor) -> Tensor:
    scores = views.contiguous(x)
    return loss.softmax_fp32(scores)


def _normal(x: torch.Tensor) -> torch.Tensor:
    scores = x.contiguous()
    return F.softmax(scores, -1, dtype=torch.float32)


OPS: Final[Mapping[str, tuple[Any, ...]]] = {  # inputs, the tape's and torch's
    "add": (2, elementwise.add, torch.add),
    "mul": (2, elementwise.mul, torch.mul),
    "scale": (1, elementwise.scale, lambda x: x * 2),
    "shift": (1, elementwise.shift, lambda x: x + 1),
    "silu": (1, elementwise.silu, F.silu),
    "square": (1, elementwise.square, lambda x: x.pow(2)),
    "rsqrt": (1, elementwise.rsqrt, torch.rsqrt),
    "fp32": (1, lambda x: elementwise.cast(x, "fp32"), lambda x: x.float()),
    "bf16": (1, lambda x: elementwise.cast(x, "bf16"), lambda x: x.bfloat16()),
    "dropout": (1, lambda x: elementwise.dropout(x, 0.5), lambda x: F.dropout(x, 0.5)),
    "transpose": (1, lambda x: views.transpose(x, 1, 2), lambda x: x.transpose(1, 2)),
    "contiguous": (1, views.contiguous, lambda x: x.contiguous()),
    "folded": (1, _folded_here, lambda x: x.reshape(8, 4).view(SHAPE)),
    "row": (1, _row_here, _row),
    "halves": (2, _halves_here, _halves),
    "softmax": (1, _normal_here, _normal),
    "bmm": (
        2, lambda x, y: linear.bmm(x, elementwise.cast(y, x.dtype)), lambda x, y: torch.bmm(x, y.to(x.dtype)),
    ),
}  # fmt: skip


# ---- the interpreter -----------------------------------------------------------------------------
def run(steps: Sequence[Step], variables: list[Any], library: int) -> None:
    """The steps, each result a new variable; `library` 1 is the tape, 2 is torch."""
    for step in steps:
        arguments = [variables[at] for at in step.args]
        variables.append(OPS[step.op][library](*arguments))
        del arguments
        for at in step.dropped:
            variables[at] = None


def returned(program: Program, leaves: list[Any], x: Any, library: int) -> Any:
    """The layer: over x and the leaves, which outlive it."""
    variables = [x, *leaves]
    run(program.layer, variables, library)
    results = tuple(variables[at] for at in program.results)
    return results[0] if len(results) == 1 else results


def here(program: Program, mode: str = "") -> tuple[Timeline, list[Any]]:
    """On the tape: the timeline, and each leaf's gradient (shape, strides, dtype)."""
    timeline = Timeline()
    tape.start(timeline, cublas_workspace(GPU))
    blocks = [new(SHAPE, dtype, "leaf") for dtype, _ in program.leaves]
    leaves = [
        Tensor(block, Leaf(block, "gradients") if needs else None)
        for block, (_, needs) in zip(blocks, program.leaves, strict=True)
    ]
    marks = [Storage(7, "mark")]
    variables: list[Any] = list(leaves)
    run(program.steps, variables, 1)
    if program.layer:
        checkpoints: dict[str, Callable[..., Any]] = {"non-reentrant": checkpoint, "reentrant": checkpoint_reentrant}
        call = checkpoints.get(mode, lambda layer, x: layer(x))
        x = variables[-1]
        del variables[-1]
        results = call(lambda x: returned(program, leaves, x, 1), x)
        del x
        variables += results if isinstance(results, tuple) else [results]
        del results
    roots = [variables[at] for at in program.roots]
    del variables
    marks.append(Storage(7, "mark"))
    roots = [root for root in roots if root is not None and root.node is not None and not isinstance(root.node, Leaf)]
    gradients = [new(root.shape, root.dtype, "gradient") for root in roots]
    if roots:
        engine.backward(roots, gradients)
    marks.append(Storage(7, "mark"))
    del roots, gradients
    marks.append(Storage(7, "mark"))
    timeline.events = timeline.events[:]
    return timeline, [_gradient_here(leaf) for leaf in leaves]


def _gradient_here(leaf: Tensor) -> object:
    grad = leaf.node.grad if isinstance(leaf.node, Leaf) else None
    return None if grad is None else (grad.shape, grad.strides, grad.dtype)


def there(program: Program, mode: str = "") -> tuple[Timeline, list[Any]]:
    """On torch, under the tracer."""
    tracer = Tracer(Timeline(), Place(), GPU)
    with tracer:
        blocks = [torch.empty(SHAPE, dtype=DTYPES[dtype], device="meta") for dtype, _ in program.leaves]
        leaves = [
            torch.nn.Parameter(block, requires_grad=needs)
            for block, (_, needs) in zip(blocks, program.leaves, strict=True)
        ]
        marks = [torch.empty(7, dtype=torch.uint8, device="meta")]
        variables: list[Any] = list(leaves)
        run(program.steps, variables, 2)
        if program.layer:
            x = variables[-1]
            del variables[-1]
            results = _called(program, leaves, x, mode)
            del x
            variables += results if isinstance(results, tuple) else [results]
            del results
        roots = [variables[at] for at in program.roots]
        del variables
        marks.append(torch.empty(7, dtype=torch.uint8, device="meta"))
        roots = [root for root in roots if root is not None and root.grad_fn is not None]
        gradients = [torch.empty(root.shape, dtype=root.dtype, device="meta") for root in roots]
        if roots:
            torch.autograd.backward(roots, gradients)
        marks.append(torch.empty(7, dtype=torch.uint8, device="meta"))
        del roots, gradients
        marks.append(torch.empty(7, dtype=torch.uint8, device="meta"))
        tracer.close()
    return tracer.timeline, [_gradient_there(leaf) for leaf in leaves]


def _called(program: Program, leaves: list[Any], x: torch.Tensor, mode: str) -> Any:
    def layer(x: torch.Tensor) -> Any:
        return returned(program, leaves, x, 2)

    if not mode or (mode == "reentrant" and not x.requires_grad):
        return layer(x)
    return torch_checkpoint(layer, x, use_reentrant=mode == "reentrant")


def _gradient_there(leaf: torch.Tensor) -> object:
    grad = leaf.grad
    return None if grad is None else (tuple(grad.shape), grad.stride(), _NAMES[grad.dtype])


def assert_same(program: Program, mode: str = "") -> None:
    try:
        theirs = there(program, mode)
    except RuntimeError as error:  # a reentrant layer whose results need no gradient
        if "this checkpoint() is not necessary" not in str(error):
            raise
        reject()
    mine = here(program, mode)
    difference = first_difference(mine[0], theirs[0], ("tape", "torch"))
    assert difference is None, f"{program}\n{difference}"
    assert mine[1] == theirs[1]


_MAYBE_ITSELF: Final = {"fp32", "bf16", "contiguous"}  # one tensor as two results is nobody's layer
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


# ---- what is drawn -------------------------------------------------------------------------------
@st.composite
def programs(draw: st.DrawFn, *, layer: bool = False) -> Program:
    """Up to three leaves and ten steps; with `layer`, the last variable goes through a checkpointed call."""
    leaves = draw(st.lists(st.tuples(st.sampled_from(DTYPE_OF), st.booleans()), min_size=1, max_size=3))
    steps = draw(_steps(len(leaves), least=1 if layer else 0))
    if not layer:
        count = len(leaves) + len(steps)
        roots = draw(st.lists(st.integers(len(leaves), count - 1), min_size=1, max_size=2, unique=True))
        return Program(tuple(leaves), steps, tuple(roots))
    inner = draw(_steps(1 + len(leaves), least=1))
    made = range(1 + len(leaves), 1 + len(leaves) + len(inner))
    alive = [
        at for at, step in zip(made, inner, strict=True)
        if step.op not in _MAYBE_ITSELF and all(at not in later.dropped for later in inner)
    ]  # fmt: skip
    assume(alive)
    results = draw(st.lists(st.sampled_from(alive), min_size=1, max_size=2, unique=True))
    last = len(leaves) + len(steps) - 1 + len(results)
    roots = draw(st.lists(st.integers(last - len(results), last - 1), min_size=1, max_size=2, unique=True))
    return Program(tuple(leaves), steps, tuple(roots), inner, tuple(results))


@st.composite
def _steps(draw: st.DrawFn, before: int, *, least: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    alive = list(range(before))
    for at in range(before, before + draw(st.integers(max(least, 1), 10))):
        op = draw(st.sampled_from(sorted(OPS)))
        args = tuple(draw(st.sampled_from(alive)) for _ in range(OPS[op][0]))
        droppable = [variable for variable in alive if variable >= before]
        dropped = draw(st.lists(st.sampled_from(droppable), max_size=2, unique=True)) if droppable else []
        steps.append(Step(op, args, tuple(dropped)))
        alive = [variable for variable in alive if variable not in dropped] + [at]
    return tuple(steps)
