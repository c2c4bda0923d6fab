"""The allocator's own record of a run as a Timeline, and what is known of its blocks.

PyTorch notes each block that it hands out and takes back, with its address; with the marks of the Meter that is the
same list of births and deaths that estimate and trace write down, and the same replay runs over it.
Source: c10/cuda/CUDACachingAllocator.cpp, record_trace: `alloc` carries the requested bytes; torch/cuda/memory.py,
_snapshot, for the names.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.meter import Noted
from memcalc.timeline import Mark, Timeline

UNKNOWN = "unknown"  # activations, logits and workspace look alike from below

_RELEASED = ("segment_free", "segment_unmap")


def timeline_of(
    entries: Iterable[Mapping[str, Any]], marks: Sequence[tuple[int, str, str]], noted: Sequence[Noted]
) -> Timeline:
    """The recorded entries as rows; blocks at `noted` addresses have their category, all others are unknown.

    Raises Unmeasurable where the record does not begin with the process or has gaps.
    """
    timeline = Timeline()
    alive: dict[int, int] = {}  # row by address
    emptied: list[int] = []
    pending = sorted(noted, key=lambda note: note.events)
    settled = 0
    for entry in entries:
        while settled < len(pending) and pending[settled].events <= len(timeline.events):
            _settle(timeline, alive, pending[settled])
            settled += 1
        action = entry["action"]
        if action == "alloc":
            alive[entry["addr"]] = timeline.birth(entry["size"], UNKNOWN, "", _where(entry.get("frames") or ()))
        elif action == "free_requested":
            row = alive.pop(entry["addr"], None)
            if row is None:
                raise Unmeasurable("the allocator's record has gaps: a block is released that was never handed out")
            timeline.death(row)
        elif action in _RELEASED and emptied[-1:] != [len(timeline.events)]:
            emptied.append(len(timeline.events))
    for note in pending[settled:]:
        _settle(timeline, alive, note)
    _place(timeline, marks, emptied)
    return timeline


def _settle(timeline: Timeline, alive: Mapping[int, int], note: Noted) -> None:
    for address in note.addresses:
        row = alive.get(address)
        if row is not None:
            timeline.categories[row] = note.category


def _place(timeline: Timeline, marks: Sequence[tuple[int, str, str]], emptied: Iterable[int]) -> None:
    if any(at > len(timeline.events) for at, _, _ in marks):
        raise Unmeasurable("the allocator's record has gaps: it holds fewer blocks than the counters have seen")
    placed = [Mark(at, "empty_cache") for at in emptied]
    for at, kind, name in marks:
        placed.append(Mark(at, "phase", name) if kind == "phase" else Mark(at, "phase_end"))
    timeline.marks = sorted(placed, key=lambda mark: mark.at)


def _where(frames: Sequence[Mapping[str, Any]]) -> str:
    """The innermost line that is not torch's own; the backward has none, it runs in C++."""
    if not frames:
        return "block"
    for frame in frames:
        if f"{os.sep}torch{os.sep}" not in frame["filename"] and frame["filename"].endswith(".py"):
            return f"{os.path.basename(frame['filename'])}:{frame['line']} {frame['name']}"
    return "backward"
