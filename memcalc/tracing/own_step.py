"""A step that a user has written: any model, loss and optimizer, whatever the loop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from unittest import mock

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from memcalc.allocator import parse_alloc_conf
from memcalc.catalog.find import DEFAULT_GPU, find_gpu
from memcalc.errors import InvalidWorkload
from memcalc.footprint import Footprint
from memcalc.kernels import Gpu
from memcalc.optimizers import about_managed_memory
from memcalc.realize import describing, versions
from memcalc.realize.optimizer import managed_bytes
from memcalc.recording import Recording, footprint_of
from memcalc.timeline import Timeline
from memcalc.tracing import attention, likeness, private_api, recurrent
from memcalc.tracing.on_meta import cuda_is_meta
from memcalc.tracing.place import Place
from memcalc.tracing.step_tracer import StepTracer


@dataclass(frozen=True)
class OwnStep:
    """What a footprint says of such a run."""

    name: str
    gpu: Gpu
    alloc_conf: str
    warm_up_steps: int
    device: str = "cuda"
    warnings: tuple[str, ...] = ()

    def to_json(self) -> Mapping[str, Any]:
        """As the footprint's `workload` holds it."""
        return {
            "model": self.name,
            "gpu": self.gpu.key if self.gpu.memory_source != "given" else f"{self.gpu.memory_bytes}B",
            "device": self.device,
            "alloc_conf": self.alloc_conf,
            "history": ",".join(["same"] * self.warm_up_steps) or "none",
        }


class TracedStep:
    """What happens inside a `with` block, traced: build a model there, run steps, call `measure` before the last one.

    Tensors on "cuda" or "meta" are the GPU's; none holds data. What comes before the first call of a module is
    loading; what comes between it and `measure` is history. The result is `footprint`, once the block is left.
    """

    footprint: Footprint

    def __init__(self, *, gpu: str | None = None, name: str = "own step", alloc_conf: str = "", top: int = 0) -> None:
        parse_alloc_conf(alloc_conf)
        self._step = OwnStep(name, find_gpu(DEFAULT_GPU if gpu is None else gpu), alloc_conf, 0)
        self._top = top
        self._chooser = attention.Chooser(self._step.gpu, None)
        self._models: dict[int, nn.Module] = {}
        self._optimizers: dict[int, torch.optim.Optimizer] = {}
        self._steps = 0

    def __enter__(self) -> Self:
        private_api.check()
        self._started = time.perf_counter()
        place = Place(loss_outside=True)
        self._tracer = StepTracer(Timeline(), place, self._step.gpu)
        self._tracer.timeline.phase("load")
        with contextlib.ExitStack() as stack:
            stack.enter_context(likeness.like_cuda(place, self._chooser))
            stack.enter_context(likeness.managed_memory(imported=True))
            stack.enter_context(cuda_is_meta())
            stack.enter_context(mock.patch("torch.cuda.empty_cache", self._tracer.timeline.empty_cache))
            stack.enter_context(place.following())
            stack.enter_context(self._watching())
            stack.enter_context(self._tracer)
            self._stack = stack.pop_all()
        return self

    @property
    def timeline(self) -> Timeline:
        """What was recorded so far."""
        return self._tracer.timeline

    def know(self, *models: nn.Module) -> None:
        """Models that were built before the block: their weights are loaded here, in order."""
        for model in models:
            for tensor in (*model.parameters(), *model.buffers()):
                self._tracer.meet(tensor)
            self._learn(model)

    def begin(self) -> None:
        """A step begins; without this one begins where a module is called."""
        self._tracer.begin()

    def measure(self) -> None:
        """The step that counts begins. What came before it is history."""
        self._tracer.forget_phases()
        self._step = dataclasses.replace(self._step, warm_up_steps=self._steps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
        self._tracer.close()
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            self.footprint = self._read()

    def _read(self) -> Footprint:
        if not self._models:
            raise InvalidWorkload("no module was called inside the traced block: run a step there")
        counted = [describing.counted(model) for model in self._models.values()]
        recording = Recording(
            timeline=self._tracer.timeline,
            total_params=sum(total for total, _ in counted),
            trainable_params=sum(trainable for _, trainable in counted),
            checkpoint_bytes=0,
            attention_kernel="+".join(self._chooser.taken),
            versions=versions.installed(),
            warnings=(
                *recurrent.left_out(self._models.values()),
                *about_managed_memory("the optimizer", sum(map(managed_bytes, self._optimizers.values()))),
            ),
        )
        seconds = time.perf_counter() - self._started
        footprint = footprint_of(self._step, recording, "trace", top=self._top, seconds=seconds)
        unknown = {"checkpoint_bytes": "what such a step saves is not known"}
        return dataclasses.replace(footprint, checkpoint_bytes=None, unavailable={**footprint.unavailable, **unknown})

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Learn from their first use which models and optimizers there are."""
        hooks = [
            register_module_forward_pre_hook(self._called),
            register_optimizer_step_pre_hook(self._steps_now),
            register_optimizer_step_post_hook(self._stepped),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _called(self, module: nn.Module, args: Any) -> None:
        if self._tracer.place.depth == 1 and not private_api.in_backward() and _has_weights(module):
            self._learn(module)

    def _learn(self, model: nn.Module) -> None:
        if id(model) not in self._models:
            self._models[id(model)] = model
            self._tracer.place.know(model)

    def _steps_now(self, optimizer: torch.optim.Optimizer, *args: Any) -> None:
        self._optimizers[id(optimizer)] = optimizer
        self._settle()  # gradients, before they are dropped
        self._tracer.enter("optimizer")

    def _stepped(self, *args: Any) -> None:
        self._settle()
        self._tracer.stepped()
        self._steps += 1

    def _settle(self) -> None:
        for model in self._models.values():
            self._tracer.settle_model(model)
        for optimizer in self._optimizers.values():
            self._tracer.settle_states(optimizer)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def trace_step(
    step: Callable[[], Any],
    *,
    model: nn.Module | None = None,
    warm_up: int = 1,
    gpu: str | None = None,
    name: str = "own step",
    alloc_conf: str = "",
    top: int = 0,
) -> Footprint:
    """What `step` needs, run `warm_up` times and once more; see TracedStep."""
    with TracedStep(gpu=gpu, name=name, alloc_conf=alloc_conf, top=top) as traced:
        if model is not None:
            traced.know(model)
        for _ in range(warm_up):
            traced.begin()
            step()
        if warm_up:
            traced.measure()
        traced.begin()
        step()
    return traced.footprint
