"""The recorder of a step that nobody announces: its phases are read off what happens."""

from typing import Any

import torch
from torch import nn

from memcalc.realize.adapters import uses_peft
from memcalc.realize.optimizer import kept_by
from memcalc.timeline import Mark
from memcalc.tracing import shadows
from memcalc.tracing.private_api import in_backward
from memcalc.tracing.tracer import Tracer

aten = torch.ops.aten


class StepTracer(Tracer):
    """A tracer that enters phases as blocks are born in them.

    A module that is called: forward. Autograd's engine: backward. An optimizer that steps: optimizer. What is born
    after the engine and outside of modules belongs to whichever comes next: clipping to the optimizer, another batch
    to another forward. A float that the step reads is 1.
    """

    _between: tuple[int, int] | None = None  # the event and the row where that began

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default and args[0].is_floating_point() and shadows.get(args[0]) is None:
            return 1.0
        return super().__torch_dispatch__(func, types, args, kwargs)

    def birth(self, nbytes: int, op: str, category: str | None = None) -> int:
        """Note a block, in the phase in which it is born."""
        if in_backward():
            self.enter("backward")
        elif self.place.depth or self.place.stage == "stepped":
            self.enter("forward")
        elif self.place.stage == "backward" and self._between is None:
            self._between = len(self.timeline.events), len(self.timeline.nbytes)
        return super().birth(nbytes, op, category)

    def enter(self, stage: str) -> None:
        """Go over to a phase, if it is another one; what came in between was its beginning."""
        if stage == self.place.stage:
            return
        self.place.enter(stage)
        if self._between is None or stage == "backward":
            self.timeline.phase(stage)
        else:
            event, row = self._between
            self.timeline.marks.append(Mark(event, "phase", stage))
            category = "workspace" if stage == "optimizer" else "activations"
            self.timeline.categories[row:] = [category] * (len(self.timeline.nbytes) - row)
        self._between = None

    def begin(self) -> None:
        """A step begins: whatever is born next belongs to its forward."""
        self.place.stage = "stepped"

    def stepped(self) -> None:
        """An optimizer has stepped: whatever is born next belongs to the next forward."""
        self.timeline.phase_end()
        self.begin()

    def forget_phases(self) -> None:
        """All phases so far but loading become history."""
        marks = self.timeline.marks
        first = next((at for at, mark in enumerate(marks) if mark.name not in ("", "load")), None)
        if first is not None:
            emptied = [mark for mark in marks[first:] if mark.kind == "empty_cache"]
            marks[first:] = [Mark(marks[first].at, "phase", "history"), *emptied]

    def settle_model(self, model: Any) -> None:
        """A model's blocks are weights, or adapters of peft's; its gradients are known once they are there."""
        prefix = getattr(model.base_model, "prefix", None) if uses_peft(model) else None
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            added = bool(prefix and prefix in name) or (uses_peft(model) and name.startswith("prompt_encoder."))
            self.settle(tensor, "adapter" if added else "weights", self.place.name_of(name))
            if isinstance(tensor, nn.Parameter):
                self.settle(tensor.grad, "gradients")

    def settle_states(self, optimizer: torch.optim.Optimizer) -> None:
        """What an optimizer keeps from step to step."""
        for value in kept_by(optimizer):
            self.settle(value, "optimizer_states")
