"""The backward pass: autograd's engine over nodes, block by block in the order of the real one.

Source: PyTorch 2.13, torch/csrc/autograd/engine.cpp (evaluate_function, call_function, validate_outputs)
and input_buffer.cpp (accumulate).
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count

from memcalc.tape.layouts import contiguous_strides, is_dense
from memcalc.tape.tape import Array, Input, Leaf, Node, Tensor, like, new, tape

Ready = list[tuple[float, int, Node | Leaf]]


def backward(roots: Sequence[Tensor], gradients: Sequence[Array]) -> None:
    """Run the graph of `roots` from their `gradients`, which the caller keeps: nothing is added into them.

    Gradients end up in the graph's leaves; its saved arrays die.
    """
    outer = tape.in_backward, tape.grad, tape.scope, tape.category
    edges = [None if x.node is None else (x.node, x.index, x.shape, x.dtype) for x in roots]
    set_aside = _set_aside(edges) if tape.in_backward else []
    tape.in_backward, tape.grad = True, False
    for gradient in gradients:
        gradient.hold(1)
    try:
        _run(edges, list(gradients))
    finally:
        for gradient in gradients:
            gradient.hold(-1)
        for node, waiting, buffer in set_aside:
            node.waiting, node.buffer = waiting, buffer
        tape.in_backward, tape.grad, tape.scope, tape.category = outer


def _set_aside(roots: Sequence[Input | None]) -> list[tuple[Node | Leaf, int, list[Array | None] | None]]:
    """What an engine further out waits for in nodes that the roots reach too: a run has counts of its own."""
    found: dict[Node | Leaf, tuple[int, list[Array | None] | None]] = {}
    stack = [roots]
    while stack:
        for edge in stack.pop():
            if edge is not None and edge[0] not in found:
                node = edge[0]
                found[node] = node.waiting, node.buffer
                node.waiting, node.buffer = -1, None
                stack.append(node.inputs)
    return [(node, *kept) for node, kept in found.items() if kept[0] > 0]


def _run(roots: Sequence[Input | None], gradients: list[Array | None]) -> None:
    _count_edges(roots)
    ties = count()  # equal numbers (leaves) run in order of arrival
    ready: Ready = []
    _hand_on(roots, gradients, ready, ties)
    while ready:
        node = heappop(ready)[2]
        tape.scope, tape.category = node.scope, node.category
        if isinstance(node, Leaf):
            _accumulate(node)
            continue
        outputs: list[Array | None] = [None] * len(node.inputs) if node.buffer is None else _call(node)
        node.backward = None  # its saved arrays die here, before outputs are handed on
        _hand_on(node.inputs, outputs, ready, ties)


def _count_edges(roots: Sequence[Input | None]) -> None:
    """Note in each node that the roots reach how many edges lead to it."""
    stack: list[Sequence[Input | None]] = [roots]
    while stack:
        for edge in stack.pop():
            if edge is None:
                continue
            node = edge[0]
            if node.waiting > 0:
                node.waiting += 1
            else:
                node.waiting = 1
                stack.append(node.inputs)


def _hand_on(edges: Sequence[Input | None], outputs: list[Array | None], ready: Ready, ties: Iterator[int]) -> None:
    """Give each gradient to the node at its edge; a node that has all of its gradients becomes ready.

    What was added to another one is alive until all are handed on.
    """
    for position, edge in enumerate(edges):
        if edge is None:
            continue
        node, slot = edge[0], edge[1]
        _add(node, slot, outputs, position)
        node.waiting -= 1
        if not node.waiting:
            heappush(ready, (-node.number, next(ties), node))
    outputs.clear()


def _add(node: Node | Leaf, slot: int, outputs: list[Array | None], position: int) -> None:
    """Hand one gradient on: the first one waits in the buffer, later ones are added to it.

    In place if the buffered one is dense, no view (its base would be alive), and nobody else leans on its block.
    """
    gradient = outputs[position]
    if gradient is None:
        return
    buffer = node.buffer
    if buffer is None:
        buffer = node.buffer = [None] * node.outputs
    old = buffer[slot]
    if old is None:
        gradient.hold(1)
        buffer[slot] = gradient
        outputs[position] = None
    elif (
        old.is_view or old.storage.held != 1 or old.storage is gradient.storage or not is_dense(old.shape, old.strides)
    ):
        total = like(old, "add")
        old.hold(-1)
        total.hold(1)
        buffer[slot] = total


def _take(node: Node | Leaf) -> list[Array | None]:
    gradients, node.buffer = node.buffer, None
    assert gradients is not None
    for gradient in gradients:
        if gradient is not None:
            gradient.hold(-1)
    return gradients


def _accumulate(leaf: Leaf) -> None:
    """What waits for the gradient runs while the engine still holds it."""
    if leaf.buffer is not None:  # else none of its gradients was defined
        (gradient,) = _take(leaf)
        assert gradient is not None
        leaf.accumulate(gradient)
        if tape.accumulated is not None:
            tape.accumulated(leaf)


def _call(node: Node) -> list[Array | None]:
    """Run a node's backward; the incoming gradient lives until its outputs have their inputs' shapes and dtypes."""
    gradients = _take(node)
    assert node.backward is not None, "a graph can be run backward once"
    outputs = list(node.backward(*gradients))
    if node.python:
        del gradients
    for position, edge in enumerate(node.inputs):
        if edge is None:
            outputs[position] = None
            continue
        output = outputs[position]
        if output is None:
            continue
        if output.shape != edge[2]:
            outputs[position] = output = sum_to(output, edge[2])
        if output.dtype != edge[3]:
            outputs[position] = like(output, "to", edge[3])
    return outputs


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient to its input's shape, undoing broadcasting; leading dims are summed away at any size, and
    dropping them makes it a view.

    Source: PyTorch 2.13, aten/src/ATen/ExpandUtils.h, _sum_to.
    """
    if not shape:
        return new((), array.dtype, "sum")
    leading = len(array.shape) - len(shape)
    kept = (1,) * leading + tuple(
        1 if small == 1 else large for small, large in zip(shape, array.shape[leading:], strict=True)
    )
    total = new(kept, array.dtype, "sum") if leading or kept != array.shape else array
    return total.view(shape, contiguous_strides(shape)) if leading else total
