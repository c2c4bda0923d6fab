"""What a producer hands over, and the footprint that follows from it: one way for estimate and trace."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from memcalc.allocator import Replay, cpu_replay, live_levels, parse_alloc_conf, replay
from memcalc.errors import InvalidWorkload
from memcalc.footprint import Block, Footprint, Phase
from memcalc.kernels import Gpu
from memcalc.timeline import PHASES, Timeline

_ADDRESSES = 2**47


class Run(Protocol):
    """What a footprint says of the run itself: a Workload, or a step that a user has written."""

    @property
    def gpu(self) -> Gpu: ...
    @property
    def device(self) -> str: ...
    @property
    def alloc_conf(self) -> str: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def to_json(self) -> Mapping[str, Any]: ...


class Recording(NamedTuple):
    """A run's timeline, and what the model itself tells."""

    timeline: Timeline
    total_params: int
    trainable_params: int
    checkpoint_bytes: int
    attention_kernel: str
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()  # what was assumed


def footprint_of(
    w: Run,
    recording: Recording,
    producer: Literal["estimate", "trace", "profile"],
    *,
    top: int = 0,
    seconds: float | None = None,
) -> Footprint:
    """Replay the allocator over a recording; `top` lists that many of the largest blocks alive at the peak."""
    timeline = recording.timeline
    _refuse_the_impossible(timeline)
    played = replayed(w, timeline)
    alive = timeline.alive_at(played.peak_at + 1) if played.peak_at is not None else []
    reserved, context = played.peak_reserved, w.gpu.context_bytes
    return Footprint(
        producer=producer,
        workload={**w.to_json(), "attention_kernel": recording.attention_kernel},
        total_params=recording.total_params,
        trainable_params=recording.trainable_params,
        checkpoint_bytes=recording.checkpoint_bytes,
        peak_allocated=played.peak_allocated,
        peak_live=played.peak_live,
        peak_reserved=reserved,
        device_total=None if reserved is None or context is None else reserved + context,
        peak_phase=played.peak_phase,
        at_peak=timeline.bytes_by_category(alive, played.sizes),
        phases=_phases(played),
        unavailable=_unavailable(w),
        versions=recording.versions,
        warnings=(*w.warnings, *recording.warnings),
        seconds=seconds,
        largest=_largest(timeline, played, alive, top),
    )


def replayed(w: Run, timeline: Timeline) -> Replay:
    """The timeline under the allocator of the run's device."""
    return replay(timeline, parse_alloc_conf(w.alloc_conf)) if w.device == "cuda" else cpu_replay(timeline)


def _refuse_the_impossible(timeline: Timeline) -> None:
    """Addresses of the replay are 47 bits wide, as a process's are: what is born beyond fits no machine."""
    if sum(timeline.nbytes) >= _ADDRESSES and live_levels(timeline).peak_live >= _ADDRESSES // 2:
        raise InvalidWorkload(
            f"this needs more than {_ADDRESSES // 2 // 2**40} TiB on one GPU: lower --batch or --seq-len"
        )


def _phases(played: Replay) -> tuple[Phase, ...]:
    order = [name for name in PHASES if name != "history" and name in played.phases]
    return tuple(Phase(name, *played.phases[name]) for name in order)


def _largest(timeline: Timeline, played: Replay, alive: list[int], top: int) -> tuple[Block, ...]:
    rows = sorted(alive, key=lambda row: (-played.sizes[row], row))[:top]
    return tuple(Block(played.sizes[row], timeline.categories[row], timeline.label(row)) for row in rows)


def _unavailable(w: Run) -> dict[str, str]:
    if w.device == "cpu":
        reason = "PyTorch's CPU allocator reserves nothing"
        return {"peak_reserved": reason, "device_total": reason}
    if w.gpu.context_bytes is None:
        return {
            "device_total": f"the CUDA context of {w.gpu.name} has not been measured; it takes several hundred MiB more"
        }
    return {}
