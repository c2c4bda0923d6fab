"""A timeline in the format of PyTorch's memory snapshots, for the viewer at pytorch.org/memory_viz.

The viewer's timeline of active memory is exact. Addresses are made up, one to a block and never used again: which
block lay where is the allocator's business, and its state history shows each block as a segment of its own.
Source of the format: PyTorch, torch/cuda/_memory_viz.py and torch/utils/viz/MemoryViz.js;
torch/csrc/cuda/memory_snapshot.cpp.
"""

import pickle
from typing import Any

from memcalc.errors import BadFile
from memcalc.timeline import Timeline

_FIRST_ADDRESS = 0x7F0000000000


def save_snapshot(path: str, timeline: Timeline, sizes: list[int]) -> None:
    """Write the snapshot of a timeline whose rows take `sizes` bytes. Raises BadFile where that cannot be."""
    data = pickle.dumps(snapshot(timeline, sizes))
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise BadFile(path, f"cannot be written: {error.strerror or error}") from None


def snapshot(timeline: Timeline, sizes: list[int]) -> dict[str, Any]:
    """The snapshot as the viewer reads it: an event of each birth and death, and what is alive in the end."""
    addresses = _addresses(sizes)
    entries: list[dict[str, Any]] = []
    alive: dict[int, None] = {}
    for number, event in enumerate(timeline.events):
        row = event if event >= 0 else ~event
        actions = ("alloc",) if event >= 0 else ("free_requested", "free_completed")
        entries += [_entry(action, timeline, row, addresses[row], sizes[row], number) for action in actions]
        if event >= 0:
            alive[row] = None
        else:
            del alive[row]
    return {
        "segments": [_segment(timeline, row, addresses[row], sizes[row]) for row in alive],
        "device_traces": [entries],
        "allocator_settings": {"expandable_segments": False, "garbage_collection_threshold": 0.0},
        "external_annotations": list(_annotations(timeline)),
    }


def _addresses(sizes: list[int]) -> list[int]:
    addresses, address = [], _FIRST_ADDRESS
    for size in sizes:
        addresses.append(address)
        address += size
    return addresses


def _frames(timeline: Timeline, row: int) -> list[dict[str, Any]]:
    """A block's label in place of the stack of calls that the viewer expects, innermost first."""
    module, op = timeline.labels[row]
    return [
        {"name": op, "filename": module or "step", "line": 0},
        {"name": timeline.categories[row], "filename": "category", "line": 0},
    ]


def _entry(action: str, timeline: Timeline, row: int, address: int, size: int, number: int) -> dict[str, Any]:
    return {
        "action": action,
        "addr": address,
        "size": size,
        "stream": 0,
        "time_us": number,
        "frames": _frames(timeline, row),
        "compile_context": "N/A",
        "user_metadata": timeline.categories[row],
    }


def _segment(timeline: Timeline, row: int, address: int, size: int) -> dict[str, Any]:
    block = {
        "address": address,
        "size": size,
        "requested_size": timeline.nbytes[row],
        "state": "active_allocated",
        "frames": _frames(timeline, row),
    }
    return {
        "device": 0,
        "address": address,
        "total_size": size,
        "allocated_size": size,
        "active_size": size,
        "requested_size": timeline.nbytes[row],
        "stream": 0,
        "segment_type": "small" if size <= 2**20 else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": [block],
    }


def _annotations(timeline: Timeline) -> Any:
    """Phases as the viewer's named stretches of time."""
    name = ""
    for mark in timeline.marks:
        if mark.kind == "phase":
            if name:
                yield {"stage": "END", "name": name, "device": 0, "time_us": mark.at}
            name = mark.name
            yield {"stage": "START", "name": name, "device": 0, "time_us": mark.at}
    if name:
        yield {"stage": "END", "name": name, "device": 0, "time_us": len(timeline.events)}
