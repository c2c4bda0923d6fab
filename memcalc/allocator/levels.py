"""Levels over time: what stands allocated in which phase, whatever the blocks' sizes were decided by."""

from collections.abc import Iterator
from itertools import accumulate
from operator import neg
from typing import NamedTuple

from memcalc.allocator.settings import DEFAULT, AllocatorSettings
from memcalc.timeline import Timeline


class Levels(NamedTuple):
    """Levels of one phase in bytes; the reserved one is None where nothing is reserved (device cpu)."""

    allocated_end: int
    allocated_peak: int
    reserved_peak: int | None


class Replay(NamedTuple):
    """What an allocator made of a timeline, in bytes."""

    sizes: list[int]  # the whole block given to each row, unsplit remainder included
    rounded: list[int]  # the request of each row, as the allocator rounds it
    phases: dict[str, Levels]  # in order of first appearance; peaks over all repetitions, the end of the last
    peak_allocated: int  # over all phases but history
    peak_at: int | None  # number of the event after which the peak first stands: the birth that reached it
    peak_phase: str | None
    peak_live: int  # as peak_allocated, of rounded requests
    peak_reserved: int | None  # since the beginning, history included


class Span(NamedTuple):
    """Events between two marks, `start` included and `stop` not, and what the mark at `stop` says."""

    start: int
    stop: int
    phase: str | None
    closed_by: str  # a Mark's kind, or "" at the end of the timeline


def spans(timeline: Timeline) -> Iterator[Span]:
    """The timeline cut at its marks."""
    start, phase = 0, None
    for mark in timeline.marks:
        yield Span(start, mark.at, phase, mark.kind)
        start = mark.at
        if mark.kind == "phase":
            phase = mark.name
    yield Span(start, len(timeline.events), phase, "")


def measure(timeline: Timeline, sizes: list[int], rounded: list[int], reserved: list[int] | None) -> Replay:
    """The levels that blocks of `sizes` make; `reserved` is the most reserved in each span."""
    ends: dict[str, int] = {}
    peaks: dict[str, int] = {}
    reserved_peaks: dict[str, int] = {}
    peak, peak_at, peak_phase, level, read = 0, None, None, 0, False
    changes = _changes(sizes)
    for number, span in enumerate(spans(timeline)):
        top, reached, level = _climb(timeline, span, changes, level)
        if top > peak and span.phase != "history":
            peak, peak_at, peak_phase = top, reached, span.phase
        if span.phase is not None:
            peaks[span.phase] = max(top, peaks.get(span.phase, 0))
            if not read:
                ends[span.phase] = level
            if reserved is not None:
                reserved_peaks[span.phase] = max(reserved[number], reserved_peaks.get(span.phase, 0))
        read = span.closed_by != "phase" and (read or span.closed_by == "phase_end")
    return Replay(
        sizes=sizes,
        rounded=rounded,
        phases={name: Levels(ends[name], peaks[name], reserved_peaks.get(name)) for name in peaks},
        peak_allocated=peak,
        peak_at=peak_at,
        peak_phase=peak_phase,
        peak_live=peak if sizes is rounded else _peak(timeline, rounded),
        peak_reserved=None if reserved is None else max(reserved),
    )


def _changes(sizes: list[int]) -> list[int]:
    """What each event does to the level, found under the event itself: ~row counts from the end."""
    return [*sizes, *map(neg, reversed(sizes))]


def _climb(timeline: Timeline, span: Span, changes: list[int], level: int) -> tuple[int, int, int]:
    """From `level` through a span: the highest level, the event after which it first stands, and the last level."""
    steps = map(changes.__getitem__, timeline.events[span.start : span.stop])
    levels = list(accumulate(steps, initial=level))
    top = max(levels)
    return top, span.start - 1 + levels.index(top), levels[-1]


def _peak(timeline: Timeline, sizes: list[int]) -> int:
    peak, level, changes = 0, 0, _changes(sizes)
    for span in spans(timeline):
        top, _, level = _climb(timeline, span, changes, level)
        if span.phase != "history":
            peak = max(peak, top)
    return peak


def live_levels(timeline: Timeline, settings: AllocatorSettings = DEFAULT) -> Replay:
    """Levels of the rounded requests alone, without a replay: exact for `peak_live`, nothing reserved."""
    rounded = settings.rounded(timeline.nbytes)
    return measure(timeline, rounded, rounded, None)


def cpu_replay(timeline: Timeline) -> Replay:
    """Levels on PyTorch's CPU allocator: the bytes that were asked for, nothing rounded, nothing reserved.

    Source: c10/core/CPUAllocator.cpp, DefaultCPUAllocator, which hands each request to posix_memalign.
    """
    return measure(timeline, timeline.nbytes, timeline.nbytes, None)
