"""A workload's load, history and measured step, recorded on the meta device."""

import contextlib
import functools
import gc
import time
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn

from memcalc import kernels
from memcalc.footprint import Footprint
from memcalc.optimizers import about_managed_memory
from memcalc.realize import describing, loops, versions
from memcalc.realize.adapters import uses_peft
from memcalc.realize.loading import Unloaded, build_base, load
from memcalc.realize.optimizer import managed_bytes
from memcalc.recording import Recording, footprint_of
from memcalc.timeline import Timeline
from memcalc.tracing import attention, likeness, private_api, recurrent
from memcalc.tracing.failing import one_line_errors
from memcalc.tracing.marks import Marks, Progress, silent
from memcalc.tracing.place import Place
from memcalc.tracing.refusing import refuse
from memcalc.tracing.tracer import Tracer
from memcalc.workload import Workload

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}


def trace(
    workload: Workload, *, top: int = 0, progress: Progress = silent, trust_remote_code: bool = False
) -> Footprint:
    """What the real step needs: recorded on the meta device, replayed through the caching allocator."""
    started = time.perf_counter()
    recording = record(workload, progress=progress, trust_remote_code=trust_remote_code)
    progress("replaying the allocator")
    return footprint_of(workload, recording, "trace", top=top, seconds=time.perf_counter() - started)


def record(
    workload: Workload, device: str = "meta", *, progress: Progress = silent, trust_remote_code: bool = False
) -> Recording:
    """Run the workload under the recorder; `progress` hears what it is doing.

    `trust_remote_code`: modelling code that comes with the model's folder is run; else such a model is refused.
    `device` other than meta is for checking the recorder itself: real tensors, nothing of CUDA's own added.
    Raises MemcalcError with one line where the model, the method or this torch cannot do it.
    """
    private_api.check()
    refuse(workload, real=device != "meta")
    versions.transformers_version()  # one that is too old is refused before others are imported with it
    cuda = device == "meta" and workload.device == "cuda"
    place = Place(headless=workload.loss == "chunked-nll")
    chooser = attention.Chooser(workload.gpu, _PINNED.get(workload.attention))
    timeline = Timeline()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # peft corrects some settings, and says so
        if cuda:
            stack.enter_context(likeness.like_cuda(place, chooser))
        elif device == "meta":
            stack.enter_context(likeness.like_cpu(place))
        if device == "meta":
            stack.enter_context(likeness.libraries(chooser.pinned, workload, timeline.empty_cache))
        stack.enter_context(place.following())
        stack.enter_context(one_line_errors())
        stack.enter_context(_old_objects_left_alone())
        progress("building the model")
        base = build_base(workload, device, trust_remote_code=trust_remote_code)
        tracer = Tracer(timeline, place, workload.gpu if cuda else None, device)
        for tensor in (*base.values.values(), *base.model.parameters(), *base.model.buffers()):
            tracer.ignore(tensor)
        with tracer:
            model, managed = _run(base, workload, device, Marks(tracer, progress))
        tracer.close()
        total, trainable = describing.counted(model)
        with Tracer(Timeline(), place, None, device):  # prompts are computed once more to be saved
            checkpoint_bytes = describing.checkpoint_bytes(model)
        return Recording(
            timeline=timeline,
            total_params=total,
            trainable_params=trainable,
            checkpoint_bytes=checkpoint_bytes,
            attention_kernel=_kernel_taken(model, chooser),
            versions=versions.installed(),
            warnings=(
                *((kernels.NO_OUTLIERS,) if workload.quant == "int8" else ()),
                *(recurrent.left_out([model]) if cuda else ()),
                *about_managed_memory(workload.optimizer, managed),
            ),
        )


def _run(base: Unloaded, workload: Workload, device: str, marks: Marks) -> tuple[nn.Module, int]:
    """The model, and bytes that its optimizer keeps in managed memory."""
    with_adapters = functools.partial(marks.place.category, "adapter")
    model, base_tensors = load(base, workload, device, marks, with_adapters)
    marks.know_loaded(model, base_tensors)
    managed = 0
    if workload.training:
        training = loops.Training(model, workload, device, marks)
        marks.optimizer = training.optimizer
        training.run()
        managed = managed_bytes(training.optimizer)
    else:
        loops.infer(model, workload, device, marks)
    return model, managed


def _kernel_taken(model: Any, chooser: attention.Chooser) -> str:
    """transformers' implementation of attention, or the kernels that sdpa took."""
    base = model.get_base_model() if uses_peft(model) else model
    implementation: str = base.config._attn_implementation
    if implementation != "sdpa":
        return {"flash_attention_2": "flash"}.get(implementation, implementation)
    return "+".join(chooser.taken) or "sdpa"


@contextlib.contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """The garbage collector does not walk the libraries' million objects again and again; cycles are still found."""
    frozen_before = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:
            gc.unfreeze()
