"""estimate: a workload's step written over the tape, its timeline replayed, its footprint."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Literal, NamedTuple

from memcalc import families, repeating
from memcalc.allocator import cpu_replay, live_levels
from memcalc.depth import DEPTH, peak_at_depth
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.families import Family
from memcalc.families.config import Config
from memcalc.footprint import Footprint
from memcalc.formats import ITEMSIZE
from memcalc.kernels import NO_OUTLIERS, cublas_workspace
from memcalc.methods.base import Method
from memcalc.optimizers import OPTIMIZERS, about_managed_memory
from memcalc.recording import Recording, footprint_of
from memcalc.repeating import repeated
from memcalc.step.declaring import Architecture, Bare, declare, declare_bare
from memcalc.step.loading import PACKED_BYTES, Loaded, load
from memcalc.step.loops import Inference, Training
from memcalc.tape import attending
from memcalc.tape.builder import Builder
from memcalc.tape.tape import Work, tape
from memcalc.timeline import Timeline
from memcalc.workload import Workload

MODELLED_VERSIONS = {"torch": "2.13.0", "transformers": "5.24.0", "peft": "0.21.2", "bitsandbytes": "0.50.2"}

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}
_one_at_a_time = threading.Lock()  # there is one tape


def estimate(w: Workload, *, top: int = 0) -> Footprint:
    """Predict a workload's footprint in closed form.

    Raises NotModelled for what only trace or profile can do, InvalidWorkload for what cannot be.
    """
    started = time.perf_counter()
    with without_collector():
        recording = record(w)
        seconds = time.perf_counter() - started
        return footprint_of(w, recording, "estimate", top=top, seconds=seconds)


def record(w: Workload) -> Recording:
    """Write the workload's loading and steps over the tape."""
    family, c = family_of(w)
    timeline, m, loaded = _whole(w, family, c)
    return Recording(
        timeline=timeline,
        total_params=_total(loaded),
        trainable_params=_trainable(loaded, w),
        checkpoint_bytes=_checkpoint_bytes(loaded, m, w),
        attention_kernel="+".join(m.kernels_taken) or _implementation_name(m.attention.implementation),
        versions=MODELLED_VERSIONS,
        warnings=(
            *((NO_OUTLIERS,) if w.quant == "int8" else ()),
            *((w.method.left_out,) if w.method.left_out and w.training else ()),
            *(about_managed_memory(w.optimizer, _managed_bytes(loaded, w)) if w.training else ()),
        ),
    )


def _whole(w: Workload, family: Family, c: Config) -> tuple[Timeline, Builder, Loaded]:
    """The whole model's timeline: four layers repeated where layers are alike, else all of them written."""
    if c.layers > repeating.DEPTH and _layers_alike(w, c):
        few, m, loaded = write(w, family, replace(c, layers=repeating.DEPTH), depth=c.layers)
        _only_what_the_loop_keeps(few, family, w)
        timeline = repeated(few, family.LAYERS, c.layers)
        if timeline is not None:
            return timeline, m, loaded
    timeline, m, loaded = write(w, family, c)
    _only_what_the_loop_keeps(timeline, family, w)
    return timeline, m, loaded


def peak_live(w: Workload) -> int:
    """`peak_live` alone, of any depth, from three layers of one step: what sweeps need.

    Where a step leaves more behind than the optimizer's states (an output kept until the next forward, gradients
    zeroed in place, another history), the whole run is written.
    """
    with without_collector():
        family, c = family_of(w)
        steady = w.history == ("same",) and w.keep_logits != "next" and w.zero_grad == "none"
        if c.layers > DEPTH and _layers_alike(w, c) and (steady or not w.training):
            timeline, _, _ = write(w, family, replace(c, layers=DEPTH), depth=c.layers, prepared=True)
            peak = peak_at_depth(timeline, family.LAYERS, c.layers, 512 if w.device == "cuda" else 1)
            if peak is not None:
                return peak
        timeline, _, _ = write(w, family, c)
        return live_levels(timeline).peak_live if w.device == "cuda" else cpu_replay(timeline).peak_live


class Arithmetic(NamedTuple):
    """Multiply-adds of the matrix products of one step; what checkpointing computes again is backward's."""

    forward: int
    backward: int


def arithmetic(w: Workload) -> Arithmetic:
    """What one step's matrix products compute, from three layers where all are alike."""
    with without_collector():
        family, c = family_of(w)
        few = c.layers > DEPTH and _layers_alike(w, c)
        work: Work = {}
        write(w, family, replace(c, layers=DEPTH) if few else c, depth=c.layers if few else 0, prepared=True, work=work)
    middle, times = f"{family.LAYERS}.1.", c.layers - (DEPTH - 1)
    total = {False: 0, True: 0}
    for (in_backward, module), size in work.items():
        total[in_backward] += size * times if few and f"{module}.".startswith(middle) else size
    return Arithmetic(total[False], total[True])


def architecture_of(w: Workload) -> Architecture:
    """What the workload's model consists of under its method: declared, nothing is loaded or run."""
    family, c = family_of(w)
    with _one_at_a_time:
        return declare(family, c, w.method, _attention(w, c, family))


def bare_of(w: Workload) -> Bare:
    """What the workload's model consists of without its method."""
    family, c = family_of(w)
    with _one_at_a_time:
        return declare_bare(family, c, _attention(w, c, family))


def write(
    w: Workload, family: Family, c: Config, *, depth: int = 0, prepared: bool = False, work: Work | None = None
) -> tuple[Timeline, Builder, Loaded]:
    """The workload's loading and steps on a timeline.

    `depth` is the real model's, where `c` has fewer layers; `prepared`: the measured step alone, on what another left;
    `work`: where the matrix products of all steps are counted.
    """
    attention = _attention(w, c, family)
    timeline = Timeline()
    with _one_at_a_time:
        architecture = declare(family, c, w.method, attention)
        tape.start(timeline, cublas_workspace(w.gpu) if w.device == "cuda" else 0, w.device)
        m = _builder(w, c, attention, architecture)
        loaded = load(m, architecture, family, w, depth)
        loop = Training(m, family, c, w, loaded) if w.training else Inference(m, family, c, w)
        tape.work = work
        try:
            loop.run(prepared=prepared)
            timeline.events = timeline.events[:]  # what dies from here on is no longer part of the recording
        finally:
            tape.accumulated = None
            vars(loop).clear()  # loop and trainer know each other: else only the collector could free what they keep
    return timeline, m, loaded


def family_of(w: Workload) -> tuple[Family, Config]:
    """The family that writes the workload's model, and the model's numbers, checked against the workload."""
    _refuse(w)
    family = families.find(w.model.config.get("model_type"))
    c = _expanded(family.read(w.model), w.method)
    _check(w, c, family)
    return family, c


def _expanded(c: Config, method: Method) -> Config:
    """The model's numbers once the method has put in its copies of layers."""
    if method.deeper(c.layers) == c.layers:
        return c
    stack = method.stack(c.layers)
    return replace(c, layers=len(stack), windows=tuple(c.windows[number] for number in stack) if c.windows else ())


@contextmanager
def without_collector() -> Iterator[None]:
    """No cycles are made here: reference counts free everything, and the collector would only look at it all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _layers_alike(w: Workload, c: Config) -> bool:
    """Whether every layer does the same, so that a few may stand for all."""
    return c.layers_alike and w.method.layers_alike and w.checkpoint_every == 1


def _builder(w: Workload, c: Config, attention: attending.Attention, architecture: Architecture) -> Builder:
    checkpointing: Literal["none", "reentrant", "non-reentrant"] = "none"
    if w.checkpointing:
        checkpointing = "reentrant" if w.reentrant else "non-reentrant"
    embedding = next(name for name, declared in architecture.base.items() if declared.kind == "embedding")
    return Builder(
        w.method,
        c.layers,
        attention,
        architecture.targets,
        architecture.sizes,
        declaring=False,
        lookup=architecture.lookup,
        checkpointing=checkpointing,
        checkpoint_every=w.checkpoint_every,
        training=w.training,
        use_cache=w.use_cache,
        inputs_require_grad=w.checkpointing and embedding not in architecture.trained,
        loss_in_chunks=w.loss == "chunked-nll",
        noisy_embeddings=w.neftune_alpha is not None,
        common=architecture.common,
    )


def _attention(w: Workload, c: Config, family: Family) -> attending.Attention:
    """transformers' implementation: its own choice, or the one asked for where the model offers it."""
    asked = {"auto": family.ATTENTIONS[0], "eager": "eager", "flash": "flash_attention_2"}.get(w.attention, "sdpa")
    if w.device == "cpu" and w.attention == "auto":
        asked = "eager"
    if asked not in family.ATTENTIONS:
        offered = ", ".join(_implementation_name(name) for name in family.ATTENTIONS)
        raise InvalidWorkload(f"--attention {w.attention}: {c.model_type} models offer {offered} only")
    half = w.dtype if w.amp == "none" else w.amp
    return attending.Attention(asked, w.gpu, _PINNED.get(w.attention), c.attention_dropout, w.training, half)


def _implementation_name(implementation: str) -> str:
    return {"flash_attention_2": "flash"}.get(implementation, implementation)


def _refuse(w: Workload) -> None:
    """What the contract names and this command does not write yet; the message names another way."""
    if w.device not in ("cuda", "cpu"):
        raise NotModelled(
            f"estimate does not know the allocator of --device {w.device}: memcalc profile measures on it"
        )
    reasons = {
        f"--loss {w.loss}": w.loss not in ("nll", "chunked-nll"),
        f"--quant {w.quant}": w.quant not in ("none", *PACKED_BYTES),
    }
    for option, refused in reasons.items():
        if refused:
            raise NotModelled(f"estimate does not write {option} yet: memcalc trace runs the real one")
    if w.device == "cpu" and w.training and OPTIMIZERS[w.optimizer].package == "bitsandbytes":
        raise NotModelled(
            f"--optimizer {w.optimizer} cannot go with --device cpu in estimate: what bitsandbytes' kernels allocate "
            "there is not known; memcalc profile runs it"
        )
    if w.device == "cpu" and not written_for_cpu(w):
        raise NotModelled(
            "--device cpu is written for --dtype fp32 or bf16 with eager attention and --loss nll, without autocast "
            "or quantization: use --device cuda"
        )


def written_for_cpu(w: Workload) -> bool:
    """Whether a workload on the CPU takes only paths whose blocks are known there."""
    plain = w.amp == "none" and w.dtype != "fp16" and w.quant == "none" and w.loss == "nll"
    return plain and w.attention in ("auto", "eager")


def _check(w: Workload, c: Config, family: Family) -> None:
    """Constraints that need the model's numbers."""
    before = w.method.positions_before
    if c.max_positions is not None and family.LEARNED_POSITIONS and before + w.seq_len > c.max_positions:
        virtual = f" and the {before} virtual tokens before it are" if before else " is"
        raise InvalidWorkload(
            f"--seq-len {w.seq_len}{virtual} longer than the {c.max_positions} positions that {c.name} has learned"
        )
    if before and c.rope_type == "dynamic" and c.max_positions is not None and before + w.seq_len > c.max_positions:
        raise NotModelled(f"{c.name}: estimate does not write dynamic rope past its positions: use trace")

    _check_noise(w, family)


def _check_noise(w: Workload, family: Family) -> None:
    """Trainer looks for the embedding in `base_model.model` of what peft made: under prompts that is the model's own.

    Source: transformers 5.24.0, integrations/neftune.py, activate_neftune.
    """
    found = family.LAYERS.startswith("model.") or not w.method.positions_before
    if w.neftune_alpha is not None and w.loop == "trainer" and not found:
        raise InvalidWorkload(
            f"--neftune-alpha cannot go with --method {w.method_name} here: Trainer does not find the embedding of "
            "this model under its prompts"
        )


def _total(loaded: Loaded) -> int:
    """All parameters, tied ones once, packed ones by logical size; buffers are none."""
    known = (loaded.model.base | loaded.model.adapters).items()
    return sum(prod(one.shape) * loaded.times(name) for name, one in known if one.kind != "buffer")


def _trainable(loaded: Loaded, w: Workload) -> int:
    """What trains in the measured step; where none is run, all that can."""
    trained = loaded.in_measured_step if w.training else loaded.trained
    return sum(prod(x.shape) * loaded.times(name) for name, x in trained.items())


def _checkpoint_bytes(loaded: Loaded, m: Builder, w: Workload) -> int:
    """Tensor bytes that save_pretrained writes: adapters and trained biases, or the model if nothing is beside it."""
    if w.merged or not w.method.adds:
        return _total(loaded) * ITEMSIZE[w.dtype]
    targets = sum(loaded.times(f"{name}.") for name in loaded.model.targets)
    total = 0
    for name in (*loaded.model.adapters, *loaded.model.trained):
        x, adapter = m.parameters[name], loaded.model.adapters.get(name)
        nbytes = prod(x.shape) * ITEMSIZE[x.dtype]
        if adapter is not None:
            nbytes = w.method.saved_bytes(m, name, nbytes, buffer=adapter.kind == "buffer", targets=targets)
        total += nbytes * loaded.times(name)
    return total


def _managed_bytes(loaded: Loaded, w: Workload) -> int:
    """Bytes of paged optimizer states, which are no blocks of the device's allocator."""
    states, kept = OPTIMIZERS[w.optimizer].states, loaded.with_states(w)
    return sum(
        state.nbytes * loaded.times(name)
        for name, one in loaded.seen_by_optimizer(w).items()
        if name in kept
        for state in states(one)
        if state.paged
    )


def _only_what_the_loop_keeps(timeline: Timeline, family: Family, w: Workload) -> None:
    """Guard: a layer's activations are dead after the step, unless the loop keeps the model's output.

    A debugger that holds frames of the running step would keep them alive, and the peak would be wrong.
    """
    if w.use_cache or w.keep_logits == "next":
        return
    for row in timeline.alive_at(len(timeline.events)):
        module, _ = timeline.labels[row]
        if module.startswith(family.LAYERS) and timeline.categories[row] == "activations":
            raise RuntimeError(f"{timeline.label(row)} outlived the step: is a debugger holding its frames?")
