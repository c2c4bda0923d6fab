"""PyTorch's CUDA caching allocator, replayed over a timeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from memcalc.timeline import Timeline


@dataclass(frozen=True, slots=True)
class AllocatorSettings:
    """What PYTORCH_CUDA_ALLOC_CONF sets and memory feels."""

    expandable_segments: bool = False
    max_split_size: int | None = None  # bytes
    roundup_power2_divisions: tuple[int, ...] = ()  # one per power of two from 1 MiB to 64 GiB; empty: off
    garbage_collection_threshold: float = 0.0  # acts only where the device limit is known: not in a replay


DEFAULT_SETTINGS = AllocatorSettings()


class Levels(NamedTuple):
    """Levels of one phase in bytes; the reserved one is None where nothing is reserved (device cpu)."""

    allocated_end: int
    allocated_peak: int
    reserved_peak: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What the allocator made of a timeline. Bytes."""

    sizes: list[int]  # whole block given to each row, unsplit remainder included
    rounded: list[int]  # request of each row as the allocator rounds it
    phases: Mapping[str, Levels]  # in order of first appearance; the maximum over repetitions, the end of the last
    peak_allocated: int  # over all phases but history
    peak_at: int | None  # index into events of the birth that first reached the peak; None: nothing was born
    peak_phase: str | None
    peak_live: int  # as peak_allocated, of rounded requests
    peak_reserved: int | None  # since the beginning, history included


def parse_alloc_conf(text: str) -> AllocatorSettings:
    """Settings of a PYTORCH_CUDA_ALLOC_CONF string; raises InvalidWorkload or NotModelled."""
    raise NotImplementedError


def replay(timeline: Timeline, settings: AllocatorSettings = DEFAULT_SETTINGS, *, descending: bool = True) -> Replay:
    """The timeline's blocks as the CUDA caching allocator would place them."""
    raise NotImplementedError


def cpu_replay(timeline: Timeline) -> Replay:
    """The timeline's blocks on PyTorch's CPU allocator: plain bytes, nothing reserved."""
    raise NotImplementedError


class LiveLevels(NamedTuple):
    """The sum of rounded requests alive, without a replay. Bytes."""

    peak_live: int
    peak_at: int | None
    peak_phase: str | None
    phases: Mapping[str, Levels]


def live_levels(timeline: Timeline) -> LiveLevels:
    """Peaks of the sum of 512-rounded requests, without a replay."""
    raise NotImplementedError
