"""A workload's load, history and measured step, recorded on the meta device."""

# ruff: noqa: SLF001 - transformers keeps its choice there, torch which buffers are not saved

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memcalc.errors import MemcalcError, NotModelled, RunFailed
from memcalc.realize import loops, quantize
from memcalc.realize.loading import Unloaded, build_base, load
from memcalc.realize.model import uses_peft
from memcalc.timeline import Timeline
from memcalc.tracing import attention, autocast, private_api, standins
from memcalc.tracing.cuda_like import cuda_like
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer
from memcalc.workload import Workload

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


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
        self.model: nn.Module | None = None
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

    def empty_cache(self) -> None:
        self.timeline.empty_cache()

    def _settle(self) -> None:
        """Gradients and optimizer states are known as such once they are in place."""
        if self.model is not None:
            for parameter in self.model.parameters():
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
    if workload.attention == "flash" and workload.padded:
        raise NotModelled(
            "trace cannot run the flash-attn library on padded rows yet: leave out --padded, or use estimate"
        )
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
        return Recording(
            timeline=timeline,
            total_params=_counted(model)[0],
            trainable_params=_counted(model)[1],
            checkpoint_bytes=_checkpoint_bytes(model),
            attention_kernel=_kernel_taken(model, chooser),
            versions=_versions(),
        )


def _run(base: Unloaded, workload: Workload, device: str, tracer: Tracer) -> nn.Module:
    marks = _Marks(tracer)
    model, base_tensors = load(base, workload, device, marks)
    tracer.place.know(model)
    _settle_loaded(model, tracer, base_tensors)
    marks.model = model
    if workload.training:
        training = loops.Training(model, workload, device, marks)
        marks.optimizer = training.optimizer
        training.run()
    else:
        loops.infer(model, workload, device, marks)
    return model


def _settle_loaded(model: nn.Module, tracer: Tracer, base_tensors: set[int]) -> None:
    """What the method added is adapter, what stands beside packed weights is quantization state."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        category = "weights" if id(tensor) in base_tensors else "adapter"
        tracer.settle(tensor, category, tracer.place.name_of(name))
    for path, module in model.named_modules():
        for tensor in quantize.quantization_state(module):
            tracer.settle(tensor, "quantization_state", (tracer.place.relative(path), "quant_state"))


def _counted(model: Any) -> tuple[int, int]:
    """(total, trainable) parameters as peft counts them: packed weights by logical size, tied ones once.

    Source: peft 0.21, peft_model.py, get_nb_trainable_parameters.
    """
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = parameter.numel() if state is None else state.shape.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def _checkpoint_bytes(model: Any) -> int:
    """Tensor bytes that save_pretrained writes: the adapters, or for full fine-tuning the whole model."""
    stored = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                stored[f"{path}.{name}" if path else name] = buffer
    if uses_peft(model):
        from peft import get_peft_model_state_dict

        stored = get_peft_model_state_dict(model, state_dict=stored, save_embedding_layers=False)
    tensors = stored.values()
    seen: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


def _kernel_taken(model: Any, chooser: attention.Chooser) -> str:
    base = model.get_base_model() if uses_peft(model) else model
    implementation: str = base.config._attn_implementation
    if implementation != "sdpa":
        return {"flash_attention_2": "flash"}.get(implementation, implementation)
    return "+".join(chooser.taken) or "sdpa"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


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
