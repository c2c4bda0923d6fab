"""Storage, Array, Tensor, Node: what an op is written with.

Lifetimes are not written by hand. A Storage notes its block in `__init__` and its death in `__del__`:
CPython's reference counts free it where they free the real tensor, as long as callers keep the real
code's functions and local variables. An edge of the graph holds a node, never a tensor, and a backward
closure captures arrays, shapes and dtypes, never tensors.

The protocol of an op: `wants(x)` asks whether x needs a gradient, `save(array)` keeps an array for
backward, `new`/`like` allocate, `record(out, inputs, backward)` adds the node.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from memcalc.tape.layouts import Shape, block_layout, is_contiguous, is_dense
from memcalc.timeline import Timeline


class Tape:
    """What is being recorded now: one run at a time (see `recording`)."""

    __slots__ = (
        "accumulated",
        "autocast",
        "category",
        "device",
        "frame",
        "gemm_workspaces",
        "grad",
        "in_backward",
        "inference",
        "number",
        "scope",
        "timeline",
        "work",
        "workspace_bytes",
    )

    def __init__(self) -> None:
        self.start(Timeline(), 0)

    def start(self, timeline: Timeline, workspace_bytes: int, device: str = "cuda") -> None:
        """Record into `timeline` from now on; cuBLAS workspaces take `workspace_bytes` each (0: none)."""
        self.timeline = timeline
        self.work: Work | None = None  # where matrix products are counted, if at all
        self.device = device  # cuda or cpu: few kernels allocate otherwise on the other
        self.scope = ""  # module path of the call under way
        self.category = "activations"  # of blocks that say nothing else
        self.grad = True  # torch.is_grad_enabled()
        self.inference = False  # torch.is_inference_mode_enabled()
        self.in_backward = False
        self.number = 0  # autograd's sequence number
        self.frame: SavedFrame | None = None  # the checkpointed call under way
        self.autocast: AutocastCache | None = None
        self.workspace_bytes = workspace_bytes
        self.accumulated: Callable[[Leaf], None] | None = None  # called with each leaf that has got a gradient
        self.gemm_workspaces: dict[bool, Storage] = {}  # by thread: forward's (False), autograd's (True)


Work = dict[tuple[bool, str], int]  # multiply-adds of matrix products, in backward or not, by module


class SavedFrame(Protocol):
    """A checkpointed call that keeps saved arrays for itself (see checkpoint.py)."""

    def save(self, array: "Array") -> "Saved": ...


class AutocastCache(Protocol):
    """An autocast region (see autocast.py)."""

    dtype: str


class Saved(Protocol):
    """What `save` answers: the array itself, or a holder that recomputes it."""

    def get(self) -> "Array": ...


tape = Tape()


class Storage:
    """One memory block of the device."""

    __slots__ = ("events", "held", "row")

    def __init__(self, nbytes: int, op: str, category: str = "") -> None:
        self.held = 0  # gradient buffers of the engine that lean on this block
        if not nbytes:  # an allocator gives nothing for nothing
            self.row, self.events = 0, []
            return
        timeline = tape.timeline
        self.row = row = len(timeline.nbytes)
        timeline.nbytes.append(nbytes)
        timeline.categories.append(category or tape.category)
        timeline.labels.append((tape.scope, op))
        self.events = timeline.events
        self.events.append(row)

    def __del__(self) -> None:
        self.events.append(~self.row)


class Array:
    """A view of a storage: shape, strides (in elements) and dtype, as torch has them."""

    __slots__ = ("dtype", "held", "is_view", "shape", "storage", "strides")

    def __init__(self, storage: Storage, shape: Shape, strides: Shape, dtype: str, is_view: bool = False) -> None:
        self.storage = storage
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.is_view = is_view  # made by a view op: autograd's view metadata keeps its base alive
        self.held = 0  # gradient buffers of the engine that hold this very array

    def get(self) -> "Array":
        """An array saved outside a checkpoint is its own holder."""
        return self

    def view(self, shape: Shape, strides: Shape) -> "Array":
        return Array(self.storage, shape, strides, self.dtype, True)

    def hold(self, by: int) -> None:
        """One gradient buffer more (or, with -1, less) holds this array, and so leans on its block."""
        self.held += by
        self.storage.held += by

    def settle(self, category: str) -> None:
        """This block, of the timeline under way, turns out to be of another category."""
        tape.timeline.categories[self.storage.row] = category


class Tensor:
    """An array and the node that its gradient flows into (None: it needs no gradient)."""

    __slots__ = ("data", "index", "node")

    def __init__(self, data: Array, node: "Node | Leaf | None" = None, index: int = 0) -> None:
        self.data = data
        self.node = node
        self.index = index  # which output of the node this is

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def dtype(self) -> str:
        return self.data.dtype


Backward = Callable[..., "Sequence[Array | None]"]
Input = tuple["Node | Leaf", int, Shape, str]  # where a gradient goes, in which shape and dtype


class Node:
    """A recorded op: its backward closure, and where the gradients of its inputs go."""

    __slots__ = (
        "attributes",
        "backward",
        "buffer",
        "category",
        "inputs",
        "number",
        "outputs",
        "python",
        "scope",
        "waiting",
    )

    def __init__(self, backward: Backward, inputs: list[Input | None], outputs: int, python: bool) -> None:
        tape.number = number = tape.number + 1
        self.number: float = number
        self.backward: Backward | None = backward
        self.inputs = inputs
        self.outputs = outputs
        self.python = python  # a Python function's: its incoming gradients die when it returns
        self.scope = tape.scope
        self.category = tape.category
        self.attributes: object = None  # what a Python function's context keeps until the graph dies
        self.waiting = -1  # the engine's: edges that have not delivered yet; -1 outside a run
        self.buffer: list[Array | None] | None = None  # the engine's: gradients that have arrived


class Leaf:
    """AccumulateGrad: where a parameter's gradient ends up. It keeps its tensor's array alive."""

    __slots__ = ("array", "buffer", "category", "grad", "scope", "waiting")

    inputs: tuple[()] = ()
    outputs = 1
    number = float("inf")  # autograd runs it before every op

    def __init__(self, array: Array, category: str) -> None:
        self.array = array
        self.grad: Array | None = None
        self.category = category  # of its gradient
        self.scope = tape.scope
        self.waiting = -1
        self.buffer: list[Array | None] | None = None

    def accumulate(self, gradient: Array) -> None:
        """Steal the first gradient, add later ones in place.

        A first gradient in another layout than the parameter's, or one that others hold, is copied.
        Source: PyTorch 2.13, torch/csrc/autograd/functions/accumulate_grad.h, accumulateGrad.
        """
        if self.grad is not None:
            return
        if gradient.strides != self.array.strides and not _obeys(gradient, self.array):
            leaf = self.array
            dense = is_dense(leaf.shape, leaf.strides)
            gradient = like(leaf, "clone", gradient.dtype) if dense else new(leaf.shape, gradient.dtype, "clone")
        elif gradient.held:
            gradient = like(gradient, "clone")
        self.grad = gradient
        gradient.settle(self.category)


def leaf_of(parameter: Tensor) -> Leaf:
    """The leaf of a trained parameter."""
    assert isinstance(parameter.node, Leaf)
    return parameter.node


def wants(x: Tensor) -> bool:
    """Whether x needs a gradient here."""
    return x.node is not None and tape.grad


def save(array: Array) -> Saved:
    """Keep an array for backward."""
    frame = tape.frame
    return array if frame is None else frame.save(array)


def record(out: Array, inputs: Sequence[Tensor], backward: Backward, *, python: bool = False) -> Tensor:
    """The op's output, with a node if any input needs a gradient.

    `backward(gradient)` returns one gradient per input (None where none is needed), each in the shape
    and dtype in which the formula gives it: the engine sums and casts it to the input's own. `python` says
    that the real one is a torch.autograd.Function.
    """
    if tape.grad:
        for x in inputs:
            if x.node is not None:
                return Tensor(out, node_of(inputs, backward, python=python))
    return Tensor(out)


def node_of(inputs: Sequence[Tensor], backward: Backward, outputs: int = 1, *, python: bool = False) -> Node:
    """A node over `inputs`, for ops with several outputs."""
    edges = [None if x.node is None else (x.node, x.index, x.data.shape, x.data.dtype) for x in inputs]
    return Node(backward, edges, outputs, python)


def new(shape: Shape, dtype: str, op: str, category: str = "") -> Array:
    """A new contiguous block."""
    nbytes, strides = block_layout(shape, dtype)
    return Array(Storage(nbytes, op, category), shape, strides, dtype)


def like(array: Array, op: str, dtype: str = "", category: str = "") -> Array:
    """A new block in an array's own layout (torch.preserve_format)."""
    kind = dtype or array.dtype
    nbytes, strides = block_layout(array.shape, kind, array.strides)
    return Array(Storage(nbytes, op, category), array.shape, strides, kind)


def on_cuda() -> bool:
    """Whether the run is CUDA's: cuBLAS has a workspace on every card. What is declared only is not."""
    return tape.workspace_bytes > 0


def from_host(shape: Shape, dtype: str) -> Array:
    """A tensor that the host keeps, moved to the device for a while: where the host is the device, no new block."""
    nbytes, strides = block_layout(shape, dtype)
    return Array(Storage(nbytes if on_cuda() else 0, "to"), shape, strides, dtype)


def scratch(sizes: Sequence[int], op: str) -> list[Storage]:
    """Blocks that a CUDA kernel allocates for itself, alive as long as the caller keeps the list. None on the CPU."""
    return [Storage(nbytes, op, "workspace") for nbytes in sizes] if on_cuda() else []


def products(multiply_adds: int) -> None:
    """Note the multiply-adds of matrix products that a kernel computes."""
    if tape.work is not None:
        where = tape.in_backward, tape.scope
        tape.work[where] = tape.work.get(where, 0) + multiply_adds


def gemm(multiply_adds: int = 0, *, thread: bool | None = None) -> None:
    """Note that a cuBLAS call happens, of so many multiply-adds: a thread's first one allocates its workspace.

    The threads are the forward's (False) and autograd's (True); by default the one under way.

    Source: PyTorch 2.13, aten/src/ATen/cuda/CublasHandlePool.cpp: one per (handle, stream), a handle per thread.
    """
    products(multiply_adds)
    thread = tape.in_backward if thread is None else thread
    if on_cuda() and thread not in tape.gemm_workspaces:
        scope, tape.scope = tape.scope, ""
        tape.gemm_workspaces[thread] = Storage(tape.workspace_bytes, "cuBLAS workspace", "workspace")
        tape.scope = scope


def _obeys(gradient: Array, leaf: Array) -> bool:
    """The gradient layout contract: laid out as a dense leaf, in logical order where the leaf has gaps or overlaps.

    Source: PyTorch 2.13, torch/csrc/autograd/utils/grad_layout_contract.h, obeys_layout_contract.
    """
    if is_dense(leaf.shape, leaf.strides):
        return same_layout(gradient, leaf)
    return is_contiguous(gradient.shape, gradient.strides)


def same_layout(left: Array, right: Array) -> bool:
    """Same layout where it matters: dims of size 1 do not count."""
    return all(a == b or size == 1 for a, b, size in zip(left.strides, right.strides, left.shape, strict=True))
