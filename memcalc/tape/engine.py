"""The backward pass: autograd's engine over nodes, block by block in the order of the real one.

Source: PyTorch 2.13, torch/csrc/autograd/engine.cpp (evaluate_function, call_function, validate_outputs)
and input_buffer.cpp (accumulate).
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count

from memcalc.tape.tape import Array, Edge, Leaf, Node, Tensor, contiguous_strides, is_dense, like, new, tape

Buffers = dict[Node | Leaf, list[Array | None]]


def backward(roots: Sequence[Tensor], gradients: Sequence[Array]) -> None:
    """Run the graph of `roots` from their `gradients`, which the caller keeps: nothing is added into them.

    Gradients end up in the graph's leaves; its saved arrays die.
    """
    outer = tape.in_backward, tape.grad, tape.scope, tape.category
    tape.in_backward, tape.grad = True, False
    for gradient in gradients:
        gradient.storage.held += 1
    try:
        _run([(root.node, root.index) for root in roots if root.node is not None], list(gradients))
    finally:
        for gradient in gradients:
            gradient.storage.held -= 1
        tape.in_backward, tape.grad, tape.scope, tape.category = outer


def _run(roots: list[Edge], gradients: list[Array | None]) -> None:
    waiting = _dependencies(roots)
    buffers: Buffers = {}
    ties = count()  # equal numbers (leaves) run in order of arrival
    ready: list[tuple[float, int, Node | Leaf]] = []
    _hand_on(roots, gradients, buffers, waiting, ready, ties)
    while ready:
        _, _, node = heappop(ready)
        tape.scope, tape.category = node.scope, node.category
        if isinstance(node, Leaf):
            _accumulate(node, buffers)
            continue
        outputs = _call(node, buffers)
        node.backward = None  # its saved arrays die here, before outputs are handed on
        _hand_on(node.edges, outputs, buffers, waiting, ready, ties)


def _hand_on(
    edges: Sequence[Edge | None],
    outputs: list[Array | None],
    buffers: Buffers,
    waiting: dict[Node | Leaf, int],
    ready: list[tuple[float, int, Node | Leaf]],
    ties: Iterator[int],
) -> None:
    """Give each gradient to the node at its edge; a node that has all of its gradients becomes ready."""
    for position, edge in enumerate(edges):
        if edge is None:
            continue
        node, slot = edge
        _add(buffers, node, slot, outputs, position)
        waiting[node] -= 1
        if not waiting[node] and node in buffers:
            heappush(ready, (-node.number, next(ties), node))


def _dependencies(roots: list[Edge]) -> dict[Node | Leaf, int]:
    """How many edges lead to each node that the roots reach."""
    waiting: dict[Node | Leaf, int] = {}
    stack: list[Sequence[Edge | None]] = [roots]
    while stack:
        for edge in stack.pop():
            if edge is None:
                continue
            node = edge[0]
            if node in waiting:
                waiting[node] += 1
            else:
                waiting[node] = 1
                stack.append(node.edges)
    return waiting


def _take(node: Node | Leaf, buffers: Buffers) -> list[Array | None]:
    gradients = buffers.pop(node)
    for gradient in gradients:
        if gradient is not None:
            gradient.storage.held -= 1
    return gradients


def _accumulate(leaf: Leaf, buffers: Buffers) -> None:
    (gradient,) = _take(leaf, buffers)
    if gradient is not None:
        leaf.accumulate(gradient)


def _call(node: Node, buffers: Buffers) -> list[Array | None]:
    """Run a node's backward; the incoming gradient lives until its outputs have their inputs' shapes and dtypes."""
    gradients = _take(node, buffers)
    assert node.backward is not None, "a graph can be run backward once"
    outputs = list(node.backward(*gradients))
    for position, (shape, dtype) in enumerate(node.inputs):
        output = outputs[position]
        if output is None or node.edges[position] is None:
            outputs[position] = None
            continue
        if output.shape != shape:
            outputs[position] = output = sum_to(output, shape)
        if output.dtype != dtype:
            outputs[position] = like(output, "to", dtype)
    return outputs


def _add(buffers: Buffers, node: Node | Leaf, slot: int, outputs: list[Array | None], position: int = 0) -> None:
    """Hand one gradient on: the first one waits in the buffer, later ones are added to it.

    In place if the buffered one is dense, no view (its base would be alive), and nobody else leans on its block.
    """
    gradient = outputs[position]
    outputs[position] = None
    if gradient is None:
        return
    buffer = buffers.setdefault(node, [None] * node.outputs)
    old = buffer[slot]
    if old is None:
        gradient.storage.held += 1
        buffer[slot] = gradient
        return
    if not old.is_view and old.storage.held == 1 and is_dense(old.shape, old.strides):
        return
    total = like(old, "add")
    old.storage.held -= 1
    total.storage.held += 1
    buffer[slot] = total


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient to its input's shape, undoing broadcasting; dropping leading dims makes it a view.

    Source: PyTorch 2.13, aten/src/ATen/ExpandUtils.h, _sum_to.
    """
    leading = len(array.shape) - len(shape)
    kept = (1,) * leading + tuple(
        1 if small == 1 else large for small, large in zip(shape, array.shape[leading:], strict=True)
    )
    total = new(kept, array.dtype, "sum") if kept != array.shape else array
    return total.view(shape, contiguous_strides(shape)) if leading else total
