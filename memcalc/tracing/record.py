"""A workload's load, history and measured step, recorded on the meta device."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from memcalc.errors import MemcalcError, NotModelled, RunFailed
from memcalc.realize import loops, quantize
from memcalc.realize.loading import Unloaded, build_base, load
from memcalc.timeline import Timeline
from memcalc.tracing import attention, describing, private_api
from memcalc.tracing.cuda_like import cuda_like
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer
from memcalc.workload import Workload

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}


@dataclass(frozen=True)
class Recording:
    """A timeline and what only the built model can tell."""

    timeline: Timeline
    total_params: int
    trainable_params: int
    checkpoint_bytes: int
    attention_kernel: str
    versions: dict[str, str]


class _Marks:
    """The loop's phases, written into the timeline; history is one phase, whatever happens in it."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer, self.timeline, self.place = tracer, tracer.timeline, tracer.place
        self.loaded: list[tuple[nn.Parameter, str, tuple[str, str]]] = []  # with category and label
        self.optimizer: torch.optim.Optimizer | None = None
        self._marking = True

    def history(self) -> None:
        self.timeline.phase("history")
        self._marking = False

    def measured(self) -> None:
        self._marking = True

    def phase(self, name: str) -> None:
        self.place.enter(name)
        if self._marking:
            self.timeline.phase(name)

    def phase_end(self) -> None:
        self._settle()
        if self._marking:
            self.timeline.phase_end()
        if self.place.stage == "load":
            self.place.enter("prepared")

    def empty_cache(self) -> None:
        self.timeline.empty_cache()

    def _settle(self) -> None:
        """Gradients and optimizer states are known as such once they are in place; a bias may have a new block."""
        for parameter, category, label in self.loaded:
            self.tracer.settle(parameter, category, label)
            self.tracer.settle(parameter.grad, "gradients")
        if self.optimizer is not None:
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        self.tracer.settle(value, "optimizer_states")


def record(workload: Workload, device: str = "meta") -> Recording:
    """Run the workload under the recorder.

    `device` other than meta is for checking the recorder itself: real tensors, nothing of CUDA's own added.
    Raises MemcalcError with one line where the model, the method or this torch cannot do it.
    """
    private_api.check()
    timeline, place = Timeline(), Place()
    gpu = workload.gpu if device == "meta" and workload.device == "cuda" else None
    chooser = attention.Chooser(workload.gpu, _PINNED.get(workload.attention))
    with contextlib.ExitStack() as stack:
        if device == "meta":
            stack.enter_context(cuda_like(place, chooser, workload))
        stack.enter_context(place.following())
        stack.enter_context(_one_line_errors())
        base = build_base(workload, device)
        tracer = Tracer(timeline, place, gpu, device)
        for tensor in (*base.values.values(), *base.model.parameters(), *base.model.buffers()):
            tracer.ignore(tensor)
        with tracer:
            model = _run(base, workload, device, tracer)
        tracer.close()
        total, trainable = describing.counted(model)
        return Recording(
            timeline=timeline,
            total_params=total,
            trainable_params=trainable,
            checkpoint_bytes=describing.checkpoint_bytes(model),
            attention_kernel=describing.kernel_taken(model, chooser),
            versions=describing.versions(),
        )


def _run(base: Unloaded, workload: Workload, device: str, tracer: Tracer) -> nn.Module:
    marks = _Marks(tracer)
    with_adapters = functools.partial(tracer.place.category, "adapter")
    model, base_tensors = load(base, workload, device, marks, with_adapters)
    tracer.place.know(model)
    marks.loaded = _settle_loaded(model, tracer, base_tensors)
    if workload.training:
        training = loops.Training(model, workload, device, marks)
        marks.optimizer = training.optimizer
        training.run()
    else:
        loops.infer(model, workload, device, marks)
    return model


def _settle_loaded(
    model: nn.Module, tracer: Tracer, base_tensors: set[int]
) -> list[tuple[nn.Parameter, str, tuple[str, str]]]:
    """What the method added is adapter, what stands beside packed weights is quantization state.

    Returns the parameters with their categories and labels.
    """
    loaded = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        category = "weights" if id(tensor) in base_tensors else "adapter"
        tracer.settle(tensor, category, tracer.place.name_of(name))
        if isinstance(tensor, nn.Parameter):
            loaded.append((tensor, category, tracer.place.name_of(name)))
    for tensor in quantize.shared_maps():
        tracer.settle(tensor, "quantization_state", ("", "quant_state"))
    for path, module in model.named_modules():
        for tensor in quantize.quantization_state(module):
            tracer.settle(tensor, "quantization_state", (tracer.place.relative(path), "quant_state"))
    return loaded


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """An exception of the user's libraries becomes one line."""
    try:
        yield
    except MemcalcError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise RunFailed(f"the traced step failed: {type(error).__name__}: {first}") from error
