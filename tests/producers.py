"""The two tiers behind one face, so that tests and reports can hold them side by side."""

from dataclasses import dataclass

from memcalc import allocator
from memcalc.timeline import Timeline
from memcalc.workload import Workload


@dataclass(frozen=True)
class Produced:
    """What a tier says of a workload."""

    timeline: Timeline
    total_params: int | None
    trainable_params: int | None
    checkpoint_bytes: int | None
    attention_kernel: str | None


def estimated(workload: Workload) -> Produced:
    """The tape's word."""
    from memcalc import estimating

    recording = estimating.record(workload)
    if isinstance(recording, Timeline):
        return Produced(recording, None, None, None, None)
    return _produced(recording)


def traced(workload: Workload) -> Produced:
    """The oracle's word: the real step on meta."""
    from memcalc.tracing.record import record

    return _produced(record(workload))


def _produced(recording: object) -> Produced:
    names = ("timeline", "total_params", "trainable_params", "checkpoint_bytes", "attention_kernel")
    return Produced(**{name: getattr(recording, name) for name in names})


@dataclass(frozen=True)
class Levels:
    """What the allocator makes of a timeline, in bytes."""

    live: int
    allocated: int
    reserved: int | None
    phases: dict[str, allocator.Levels]
    at_peak: dict[str, int]  # by category


def levels(timeline: Timeline, workload: Workload) -> Levels:
    """The timeline replayed as the workload's device would."""
    replayed = allocator.replay(timeline, allocator.parse_alloc_conf(workload.alloc_conf))
    alive = [] if replayed.peak_at is None else timeline.alive_at(replayed.peak_at + 1)
    return Levels(
        live=replayed.peak_live,
        allocated=replayed.peak_allocated,
        reserved=replayed.peak_reserved,
        phases=replayed.phases,
        at_peak=timeline.bytes_by_category(alive, replayed.sizes),
    )
