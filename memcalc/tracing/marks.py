"""What loading and the loops tell the recorder: phases, and which blocks turn out to be what."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from memcalc.realize import adapters, quantize
from memcalc.realize.optimizer import kept_by
from memcalc.tracing.tracer import Tracer

Progress = Callable[[str], None]


def silent(stage: str) -> None:
    """Progress that nobody watches."""


class Marks:
    """The loop's phases, written into the timeline; history is one phase, whatever happens in it."""

    def __init__(self, tracer: Tracer, progress: Progress = silent) -> None:
        self.tracer, self.timeline, self.place = tracer, tracer.timeline, tracer.place
        self.optimizer: torch.optim.Optimizer | None = None
        self.progress = progress
        self._step = ""
        self._loaded: list[tuple[nn.Parameter, str, tuple[str, str]]] = []  # with category and label
        self._marking = True
        self._model: nn.Module | None = None

    def history(self) -> None:
        self.timeline.phase("history")
        self._marking, self._step = False, "warm-up: "

    def measured(self) -> None:
        self._marking, self._step = True, "measured step: "

    def phase(self, name: str) -> None:
        self.progress(f"{self._step}{name}")
        self.place.enter(name)
        if self._marking:
            self.timeline.phase(name)

    def phase_end(self) -> None:
        self.settle()
        if self._marking:
            self.timeline.phase_end()
        if self.place.stage == "load":
            self.place.enter("prepared")

    def empty_cache(self) -> None:
        self.timeline.empty_cache()

    def know_loaded(self, model: nn.Module, base_tensors: set[int]) -> None:
        """What the method added is adapter, what stands beside packed weights is quantization state."""
        self.place.know(model)
        self._model = model
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            category = "weights" if id(tensor) in base_tensors else "adapter"
            self.tracer.settle(tensor, category, self.place.name_of(name))
            if isinstance(tensor, nn.Parameter):
                self._loaded.append((tensor, category, self.place.name_of(name)))
        for tensor in quantize.shared_maps():
            self.tracer.settle(tensor, "quantization_state", ("", "quant_state"))
        for path, module in model.named_modules():
            for tensor in quantize.quantization_state(module):
                self.tracer.settle(tensor, "quantization_state", (self.place.relative(path), "quant_state"))

    def stepping(self, parameter: torch.Tensor) -> AbstractContextManager[None]:
        self.tracer.settle(parameter.grad, "gradients")
        return self.place.category("workspace")

    def settle(self) -> None:
        """Gradients and optimizer states are known as such once they are in place; a bias may have a new block."""
        for parameter, category, label in self._loaded:
            self.tracer.settle(parameter, category, label)
            self.tracer.settle(parameter.grad, "gradients")
        for tensor in adapters.kept_by_method(self._model):
            self.tracer.settle(tensor, "optimizer_states")
        if self.optimizer is not None:
            for value in kept_by(self.optimizer):
                self.tracer.settle(value, "optimizer_states")
