"""One op on both sides: the tape's on a fresh tape, torch's on meta under the tracer.

What is compared: every birth in order with its bytes, which blocks die between two births, what is saved for
backward and when, the output's layout, and the gradients that arrive in the leaves.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, Final, TypeAlias, get_type_hints
from unittest import mock

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from memcalc.catalog.find import find_gpu
from memcalc.comparing import first_difference
from memcalc.kernels import cublas_workspace
from memcalc.tape import engine
from memcalc.tape.autocast import autocast
from memcalc.tape.checkpoint import checkpoint, checkpoint_reentrant
from memcalc.tape.layouts import Shape, dense_strides
from memcalc.tape.ops import elementwise, views
from memcalc.tape.tape import Array, Leaf, Node, Saved, Storage, Tensor, new, tape
from memcalc.timeline import Timeline
from memcalc.tracing import autocast_switch, standins
from memcalc.tracing.attention import Chooser, composites
from memcalc.tracing.place import Place
from memcalc.tracing.private_api import last_reference_counts
from memcalc.tracing.tracer import Tracer

GPU: Final = find_gpu("a100-80gb")
DTYPES: Final = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int64": torch.int64, "int32": torch.int32,
    "bool": torch.bool,
}  # fmt: skip
LAYOUTS: Final = ("contiguous", "leaf", "transposed", "sliced", "expanded")
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}

Described: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], str]  # shape, strides of dims above 1, dtype


@dataclass(frozen=True)
class Op:
    """The same op twice, and what it is given. `shapes` and `extras` are by batch."""

    tape: Callable[..., Tensor]
    torch: Callable[..., torch.Tensor]
    shapes: Callable[[int], Sequence[Shape]]
    extras: Callable[[int], Sequence[tuple[Shape, str]]] = lambda _: ()  # inputs that never need a gradient
    dtypes: Sequence[str] = ()  # of each input, "" for the case's own
    layouts: Sequence[str] | Sequence[Sequence[str]] = LAYOUTS  # of every input, or of each
    gradients: Sequence[str] = ("transposed", "expanded")  # what comes back, beside contiguous
    over: Sequence[str] = ("fp32", "bf16", "fp16")  # the cases' dtypes
    pinned: str | None = None  # sdpa's kernel
    views: bool = True  # compare whether the output is a view
    amp: str = "none"
    untrained: bool = True  # compare where no gradient is wanted, too
    made: tuple[Callable[[str], Any], Callable[[str], Any]] | None = None  # by dtype: what the op's functions get first


@dataclass(frozen=True)
class Case:
    """One way of giving an op its inputs."""

    needs: tuple[bool, ...]  # which inputs need a gradient
    layouts: tuple[str, ...]
    dtype: str = "bf16"
    batch: int = 2
    gradient: str = "contiguous"  # the layout of what comes back
    mode: str = "plain"  # or no-grad, checkpointed, reentrant


def cases(op: Op) -> Iterator[Case]:
    """Every requires-grad combination, by layout of one input at a time, batch, what comes back, and mode."""
    count = len(op.shapes(2))
    plain, last = ("contiguous",) * count, op.over[-1]
    layouts = [op.layouts if isinstance(op.layouts[0], str) else op.layouts[at] for at in range(count)]
    laid_out = [
        (*plain[:at], str(layout), *plain[at + 1 :])
        for at in range(count)
        for layout in layouts[at]
        if layout != "contiguous"
    ]
    for needs in itertools.product((True, False), repeat=count):
        if not (any(needs) or op.untrained):
            continue
        batches = (1, 2) if all(needs) else (2,)  # what batch 1 changes, layouts decide
        yield Case(needs, plain, last, 1)
        yield Case(needs, plain, last)
        yield Case(needs, plain, last, mode="checkpointed")
        for batch, gradient in itertools.product(batches, op.gradients if any(needs) else ()):
            yield Case(needs, plain, last, batch, gradient)
        for batch, given in itertools.product(batches, laid_out if any(needs) else ()):
            yield Case(needs, given, last, batch)
        if needs[0] and op.untrained:
            yield Case(needs, plain, last, mode="reentrant")
    for dtype in op.over[:-1]:
        yield Case((True,) * count, plain, dtype)
    if op.untrained:
        yield Case((True,) * count, plain, last, mode="no-grad")


@dataclass
class Seen:
    """What one side did."""

    timeline: Timeline
    saved: list[tuple[int, int]] = field(default_factory=list)  # births before it, row
    kept: object = None  # what lives on after the run
    output: Described | None = None
    is_view: bool = False
    has_node: bool = False
    gradients: list[Described | None] = field(default_factory=list)

    @property
    def rows_saved(self) -> tuple[list[int], int]:
        """The blocks that are saved, and when the last one is: a checkpointed call is run again to there."""
        return sorted(row for _, row in self.saved), max((births for births, _ in self.saved), default=0)


def assert_same(op: Op) -> None:
    """Every case of the op has the same stream, saved arrays, output and gradients on both sides."""
    with cuda_like(op.pinned):
        for case in cases(op):
            mine, theirs = on_tape(op, case), on_torch(op, case)
            difference = first_difference(mine.timeline, theirs.timeline, ("tape", "torch"))
            assert difference is None, f"{case}\n{difference}"
            assert mine.rows_saved == theirs.rows_saved, case
            assert (mine.output, mine.has_node) == (theirs.output, theirs.has_node), case
            assert mine.is_view == theirs.is_view or not op.views, case
            assert mine.gradients == theirs.gradients, case


def without_row(module: ModuleType, table: Mapping[str, Op]) -> set[str]:
    """Ops of a module that no row of a table is about: a row's name begins with its op's."""
    ops = {
        name
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and get_type_hints(value).get("return") in (Tensor, list[Tensor])
    }
    return ops - {name.partition(",")[0] for name in table}


@contextlib.contextmanager
def cuda_like(pinned: str | None = None) -> Iterator[None]:
    """Ops on meta take the paths that they take on CUDA, inside a `with` block."""
    counts = last_reference_counts()  # asked for once, not by every tracer
    with (
        standins.installed({**standins.COMPOSITES, **composites(Chooser(GPU, pinned))}),
        autocast_switch.installed(Place()),
        mock.patch("memcalc.tracing.tracer.last_reference_counts", return_value=counts),
    ):
        yield


# ---- the tape ------------------------------------------------------------------------------------
def on_tape(op: Op, case: Case) -> Seen:
    timeline = Timeline()
    tape.start(timeline, cublas_workspace(GPU))
    seen = Seen(timeline)
    _run_on_tape(op, case, seen)
    timeline.events = timeline.events[:]  # what dies from here on is no part of it
    if not _looks_at_saved(case):
        return seen
    watch = _Watch()  # once more: a frame that looks at what is saved
    tape.start(watch.timeline, cublas_workspace(GPU))
    tape.frame = watch
    _run_on_tape(op, case, Seen(watch.timeline))
    seen.saved = watch.saved
    return seen


class _Watch:
    """Notes what is saved, and lets it be."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.saved: list[tuple[int, int]] = []

    def save(self, array: Array) -> Saved:
        self.saved.append((len(self.timeline.nbytes), array.storage.row))
        return array


def _run_on_tape(op: Op, case: Case, seen: Seen) -> None:
    marks: list[Storage] = []
    run = op.tape if op.made is None else functools.partial(op.tape, op.made[0](case.dtype))
    seen.kept = run
    inputs = [_tape_leaf(*given) for given in _given(op, case)]
    given = [_in_layout_on_tape(*each) for each in zip(inputs, case.layouts, op.shapes(case.batch), strict=True)]
    extras = [new(shape, dtype, "extra") for shape, dtype in op.extras(case.batch)]
    tape.grad = case.mode != "no-grad"
    with autocast(op.amp):
        out = _called_on_tape(run, case, given, extras)
    tape.grad = True
    marks.append(Storage(7, "mark"))
    del given, extras
    marks.append(Storage(7, "mark"))
    seen.output, seen.is_view, seen.has_node = _described(out.data), out.data.is_view, isinstance(out.node, Node)
    if isinstance(out.node, Node):
        gradient = _tape_gradient(out.data, case.gradient)
        engine.backward([out], [gradient])
        marks.append(Storage(7, "mark"))
        del out
        marks.append(Storage(7, "mark"))
        del gradient
        marks.append(Storage(7, "mark"))
    for leaf in inputs:
        grad = leaf.node.grad if isinstance(leaf.node, Leaf) else None
        seen.gradients.append(None if grad is None else _described(grad))


def _called_on_tape(run: Callable[..., Tensor], case: Case, given: list[Tensor], extras: list[Array]) -> Tensor:
    if case.mode in ("plain", "no-grad"):
        return run(*given, *extras)
    rest = given[1:]

    def layer(x: Tensor) -> Tensor:
        return run(x, *rest, *extras)

    return (checkpoint if case.mode == "checkpointed" else checkpoint_reentrant)(layer, given[0])


def _tape_leaf(shape: Shape, dtype: str, needs: bool) -> Tensor:
    array = new(shape, dtype, "leaf")
    return Tensor(array, Leaf(array, "gradients") if needs else None)


def _in_layout_on_tape(leaf: Tensor, layout: str, shape: Shape) -> Tensor:
    """The leaf itself, or an activation: twice the leaf, seen through a view."""
    if layout == "leaf":
        return leaf
    x = elementwise.scale(leaf)
    rank = len(x.shape)
    if layout == "transposed" and rank > 1:
        return views.transpose(x, rank - 2, rank - 1)
    if layout == "sliced" and rank:
        return views.narrow(x, rank - 1, x.shape[-1] - 3)
    if layout == "expanded" and rank:
        return views.expand(x, shape)
    return x


def _tape_gradient(out: Array, layout: str) -> Array:
    shape, strides = out.shape, _gradient_strides(out.shape, layout)
    if strides is None:
        return new(shape, out.dtype, "gradient")
    if layout == "expanded":
        return new((), out.dtype, "gradient").view(shape, strides)
    block = new(shape, out.dtype, "gradient")
    return Array(block.storage, shape, strides, out.dtype)


# ---- torch ---------------------------------------------------------------------------------------
def on_torch(op: Op, case: Case) -> Seen:
    tracer = Tracer(Timeline(), Place(), GPU)
    seen = Seen(tracer.timeline)
    with tracer:
        _run_on_torch(op, case, seen)
        tracer.close()
    if not _looks_at_saved(case):
        return seen
    watching = Tracer(Timeline(), Place(), GPU)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.numel():  # cuDNN's reserve, which is left out
            return tensor
        watching._follow(tensor, "tensor")  # an index that was a list: saved before any dispatch
        stored = tensor._values() if tensor.is_sparse else tensor
        block = watching._blocks[stored.untyped_storage()._cdata]
        assert block is not None
        seen.saved.append((len(watching.timeline.nbytes), block.row))
        return tensor

    with watching, saved_tensors_hooks(pack, lambda tensor: tensor):
        _run_on_torch(op, case, Seen(watching.timeline))
        watching.close()
    return seen


def _run_on_torch(op: Op, case: Case, seen: Seen) -> None:
    marks: list[torch.Tensor] = []
    run = op.torch if op.made is None else functools.partial(op.torch, op.made[1](case.dtype))
    seen.kept = run
    inputs = [_torch_leaf(*given) for given in _given(op, case)]
    given = [_in_layout_on_torch(*each) for each in zip(inputs, case.layouts, op.shapes(case.batch), strict=True)]
    extras = [torch.empty(shape, dtype=DTYPES[dtype], device="meta") for shape, dtype in op.extras(case.batch)]
    with (
        torch.set_grad_enabled(case.mode != "no-grad"),
        torch.autocast("meta", DTYPES.get(op.amp, torch.bfloat16), op.amp != "none"),
    ):
        out = _called_on_torch(run, case, given, extras)
    marks.append(_mark())
    del given, extras
    marks.append(_mark())
    seen.output, seen.is_view, seen.has_node = _described_torch(out), out._is_view(), out.grad_fn is not None
    if out.grad_fn is not None:
        gradient = _torch_gradient(out, case.gradient)
        torch.autograd.backward([out], [gradient])
        marks.append(_mark())
        del out
        marks.append(_mark())
        del gradient
        marks.append(_mark())
    for leaf in inputs:
        seen.gradients.append(None if leaf.grad is None else _described_torch(leaf.grad))


def _called_on_torch(
    run: Callable[..., torch.Tensor], case: Case, given: list[torch.Tensor], extras: list[torch.Tensor]
) -> Any:
    if case.mode in ("plain", "no-grad"):
        return run(*given, *extras)
    rest = given[1:]

    def layer(x: torch.Tensor) -> torch.Tensor:
        return run(x, *rest, *extras)

    return torch_checkpoint(layer, given[0], use_reentrant=case.mode == "reentrant")


def _torch_leaf(shape: Shape, dtype: str, needs: bool) -> torch.Tensor:
    return torch.nn.Parameter(torch.empty(shape, dtype=DTYPES[dtype], device="meta"), requires_grad=needs)


def _in_layout_on_torch(leaf: torch.Tensor, layout: str, shape: Shape) -> torch.Tensor:
    if layout == "leaf":
        return leaf
    x = leaf * 2
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(-2, -1)
    if layout == "sliced" and x.dim():
        return x.narrow(-1, 0, x.shape[-1] - 3)
    if layout == "expanded" and x.dim():
        return x.expand(shape)
    return x


def _torch_gradient(out: torch.Tensor, layout: str) -> torch.Tensor:
    strides = _gradient_strides(tuple(out.shape), layout)
    if strides is None:
        return torch.empty(out.shape, dtype=out.dtype, device="meta")
    if layout == "expanded":
        return torch.empty((), dtype=out.dtype, device="meta").expand(out.shape)
    return torch.empty_strided(out.shape, strides, dtype=out.dtype, device="meta")


def _mark() -> torch.Tensor:
    return torch.empty(7, dtype=torch.uint8, device="meta")


# ---- both ----------------------------------------------------------------------------------------
def _given(op: Op, case: Case) -> Iterator[tuple[Shape, str, bool]]:
    """Shape, dtype and need of each leaf, from which the layout makes the op's input."""
    for at, shape in enumerate(op.shapes(case.batch)):
        own = op.dtypes[at] if op.dtypes else ""
        yield _before(shape, case.layouts[at]), own or case.dtype, case.needs[at]


def _before(shape: Shape, layout: str) -> Shape:
    if layout == "transposed" and len(shape) > 1:
        return (*shape[:-2], shape[-1], shape[-2])
    if layout == "sliced" and shape:
        return (*shape[:-1], shape[-1] + 3)
    if layout == "expanded" and shape:
        return (1, *shape[1:])
    return shape


def _looks_at_saved(case: Case) -> bool:
    """Whether to run the case once more for what it saves: layouts and what comes back do not matter to that."""
    return case.mode == "plain" and set(case.layouts) == {"contiguous"} and case.gradient == "contiguous"


def _gradient_strides(shape: Shape, layout: str) -> Shape | None:
    """Strides of the incoming gradient; None: contiguous."""
    if layout == "expanded":
        return (0,) * len(shape)
    if layout == "transposed" and len(shape) > 1:
        reverse = tuple(range(len(shape)))
        return dense_strides(shape, reverse)
    return None


def _described(array: Array) -> Described:
    return array.shape, _telling(array.shape, array.strides), array.dtype


def _described_torch(tensor: torch.Tensor) -> Described:
    return tuple(tensor.shape), _telling(tuple(tensor.shape), tensor.stride()), NAMES[tensor.dtype]


def _telling(shape: Shape, strides: Shape) -> Shape:
    return tuple(stride for size, stride in zip(shape, strides, strict=True) if size != 1)
