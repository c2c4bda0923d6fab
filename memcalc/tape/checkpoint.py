"""Gradient checkpointing: a call whose saved arrays are thrown away and recomputed in backward.

Source: PyTorch 2.13, torch/utils/checkpoint.py (_checkpoint_without_reentrant_generator, CheckpointFunction).
"""

from collections.abc import Callable
from typing import TypeVar, cast
from weakref import ref

from memcalc.tape.autocast import autocast
from memcalc.tape.engine import backward as run_backward
from memcalc.tape.tape import Array, Leaf, Saved, Tensor, new, node_of, tape

Layer = Callable[[Tensor], object]
R = TypeVar("R")


class _StopRecomputing(Exception):
    """The last array that backward needs has been recomputed."""


class Holder:
    """The place of one saved array: empty until the call is run again, emptied when backward takes it."""

    __slots__ = ("__weakref__", "array", "frame")

    def __init__(self, frame: "Frame") -> None:
        self.frame = frame
        self.array: Array | None = None

    def get(self) -> Array:
        if self.array is None:
            self.frame.recompute()
        array, self.array = self.array, None  # handed over: it dies with the backward function
        assert array is not None, "a saved array is unpacked once"
        return array


class Frame:
    """One checkpointed call. Its nodes keep the holders, the holders keep the frame, the frame keeps the input."""

    __slots__ = ("amp", "holders", "layer", "x")

    def __init__(self, layer: Layer, x: Tensor) -> None:
        self.layer = layer
        self.x = x
        self.amp = "none" if tape.autocast is None else tape.autocast.dtype
        self.holders: list[ref[Holder]] = []

    def save(self, array: Array) -> Saved:
        holder = Holder(self)
        self.holders.append(ref(holder))
        return holder

    def recompute(self) -> None:
        """Run the call again with gradients on; it stops at the last save."""
        outer = tape.frame, tape.grad, tape.scope, tape.category
        tape.frame, tape.grad = _Refill(self.holders), True
        try:
            with autocast(self.amp):
                self.layer(self.x)
        except _StopRecomputing:
            pass
        finally:
            tape.frame, tape.grad, tape.scope, tape.category = outer


class _Refill:
    """Saving while a call is run again: the i-th array goes to the i-th holder that still lives."""

    __slots__ = ("holders", "saved")

    def __init__(self, holders: list[ref[Holder]]) -> None:
        self.holders = holders
        self.saved = 0

    def save(self, array: Array) -> Saved:
        holder = self.holders[self.saved]()
        if holder is not None:
            holder.array = array
        self.saved += 1
        if self.saved == len(self.holders):
            raise _StopRecomputing
        return array


def checkpoint(layer: Callable[[Tensor], R], x: Tensor) -> R:
    """Non-reentrant checkpointing of `layer(x)`."""
    if not tape.grad:
        return layer(x)
    outer = tape.frame
    tape.frame = Frame(layer, x)
    try:
        return layer(x)
    finally:
        tape.frame = outer


def checkpoint_reentrant(layer: Callable[[Tensor], R], x: Tensor, kept_whole: object = None) -> R:
    """Reentrant checkpointing: a forward without gradients, then in backward the whole call and an engine of its own.

    A result that nobody differentiates through is given a gradient of zeros. `kept_whole`: what ctx.run_function
    holds, arguments by name (masks, positions) among it: it outlives what is saved. Without it, all that `layer` holds.
    """
    if x.node is None or not tape.grad:
        return layer(x)
    kept = x.data
    amp = "none" if tape.autocast is None else tape.autocast.dtype
    tape.grad = False
    try:
        results = layer(x)
    finally:
        tape.grad = True
    shapes = [(result.shape, result.dtype) for result in _tensors(results)]

    def backward(*gradients: Array | None) -> list[Array | None]:
        given = [new(*shape, "zeros") if g is None else g for g, shape in zip(gradients, shapes, strict=True)]
        leaf = Leaf(kept, "activations")
        outputs = _again(layer, Tensor(kept, leaf), amp)
        run_backward(_tensors(outputs), given)
        return [leaf.grad]

    node = node_of((x,), backward, len(shapes), python=True)
    node.attributes = layer if kept_whole is None else kept_whole
    made = tuple(Tensor(result.data, node, index) for index, result in enumerate(_tensors(results)))
    return cast(R, made if isinstance(results, tuple) else made[0])


def _again(layer: Callable[[Tensor], R], x: Tensor, amp: str) -> R:
    """The call once more, with gradients on."""
    outer = tape.scope, tape.category
    tape.grad = True
    try:
        with autocast(amp):
            return layer(x)
    finally:
        tape.grad = False
        tape.scope, tape.category = outer


def _tensors(results: object) -> tuple[Tensor, ...]:
    """A layer's results, one or several."""
    if isinstance(results, tuple):
        return results
    assert isinstance(results, Tensor)
    return (results,)
