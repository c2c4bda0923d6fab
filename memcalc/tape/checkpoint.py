"""Gradient checkpointing: a call whose saved arrays are thrown away and recomputed in backward.

Source: PyTorch 2.13, torch/utils/checkpoint.py (_checkpoint_without_reentrant_generator, CheckpointFunction).
"""

from collections.abc import Callable
from weakref import ref

from memcalc.tape.autocast import autocast
from memcalc.tape.engine import backward as run_backward
from memcalc.tape.tape import Array, Leaf, Saved, Tensor, record, tape

Layer = Callable[[Tensor], Tensor]


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


def checkpoint(layer: Layer, x: Tensor) -> Tensor:
    """Non-reentrant checkpointing of `layer(x)`."""
    if not tape.grad:
        return layer(x)
    outer = tape.frame
    tape.frame = Frame(layer, x)
    try:
        return layer(x)
    finally:
        tape.frame = outer


def checkpoint_reentrant(layer: Layer, x: Tensor) -> Tensor:
    """Reentrant checkpointing: a forward without gradients, then in backward the whole call and an engine of its own."""
    if x.node is None or not tape.grad:
        return layer(x)
    kept = x.data
    amp = "none" if tape.autocast is None else tape.autocast.dtype
    tape.grad = False
    try:
        out = layer(x).data
    finally:
        tape.grad = True

    def backward(g: Array) -> list[Array | None]:
        leaf = Leaf(kept, "activations")
        outer = tape.scope, tape.category
        tape.grad = True
        try:
            with autocast(amp):
                output = layer(Tensor(kept, leaf))
        finally:
            tape.grad = False
            tape.scope, tape.category = outer
        g.storage.held += 1  # the outer engine holds it too: nothing may be added into it
        run_backward(output, g)
        g.storage.held -= 1
        return [leaf.grad]

    return record(out, (x,), backward)
