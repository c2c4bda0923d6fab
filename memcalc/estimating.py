"""estimate: a workload's step written over the tape, its timeline replayed, its footprint."""

from memcalc import families
from memcalc.step.loading import declare, load
from memcalc.step.loops import Training
from memcalc.kernels import cublas_workspace
from memcalc.tape import blocks
from memcalc.tape.builder import Builder
from memcalc.tape.tape import tape
from memcalc.timeline import Timeline
from memcalc.workload import Workload


def record(w: Workload) -> Timeline:
    family = families.find(w.model.config.get("model_type"))
    c = family.read(w.model)
    implementation = {"auto": family.ATTENTIONS[0], "eager": "eager", "flash": "flash_attention_2"}.get(w.attention, "sdpa")
    pinned = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}.get(w.attention)
    attention = blocks.Attention(implementation, w.gpu, pinned, c.attention_dropout, w.training)
    architecture = declare(family, c, w.method, attention)
    timeline = Timeline()
    tape.start(timeline, cublas_workspace(w.gpu))
    m = Builder(w.method, c.layers, attention, targets=architecture.targets, declaring=False, use_cache=w.use_cache, checkpointing="none" if not w.checkpointing else "reentrant" if w.reentrant else "non-reentrant", inputs_require_grad=w.checkpointing and not w.method.trains("", architecture.targets))
    trained = load(m, architecture, w)
    Training(m, family, c, w, trained).run()
    timeline.events = timeline.events[:]  # what dies from here on is no longer part of the recording
    return timeline
