"""Who was alive at the peak, from the allocator's own record of the run."""

import pickle
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from memcalc.allocator import parse_alloc_conf, replay
from memcalc.errors import MemcalcError
from memcalc.footprint import Block
from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.meter import Meter
from memcalc.profiling.run import Run
from memcalc.profiling.stream import UNKNOWN, timeline_of
from memcalc.timeline import CATEGORIES

_TOLD = CATEGORIES[:5]  # weights to optimizer states: tensors that somebody holds


class AtPeak(NamedTuple):
    """What the record tells of the peak, in bytes."""

    live: int  # rounded requests alone
    known: dict[str, int]  # whole blocks, by category as far as it can be told
    largest: tuple[Block, ...]
    replayed_reserved: int | None  # what our replay of the same record reserves


def read(run: Run, facts: Facts) -> AtPeak | None:
    """End the recording, write the snapshot that the case asks for, and say what was alive at the peak."""
    memory = run.device.memory
    if reason := facts.unavailable.get("recording"):
        facts.missing("at_peak_known", reason)
        return None

    def found() -> AtPeak:
        snapshot, entries = memory.snapshot()
        facts.note("allocator_settings", snapshot.get("allocator_settings"), "this torch's snapshot does not hold them")
        if run.case.snapshot is not None:
            with open(run.case.snapshot, "wb") as file:
                pickle.dump(snapshot, file)  # as torch/cuda/memory.py, _dump_snapshot, for pytorch.org/memory_viz
        memory.record(False)
        return at_peak(entries, run.meter, run.workload.alloc_conf, run.case.top)

    peak = facts.read("at_peak_known", found)
    if peak is not None:
        facts.values["at_peak_known"] = peak.known
        facts.values["replayed_reserved"] = peak.replayed_reserved
    return peak


def at_peak(entries: Iterable[Mapping[str, Any]], meter: Meter, alloc_conf: str, top: int) -> AtPeak:
    """Replay the record. The counters hold single figures only; a replay that meets the peak to the byte has placed
    the blocks as the allocator did, so that the size of each is known.

    Raises Unmeasurable where the record has gaps, or the replay misses the peak.
    """
    timeline = timeline_of(entries, meter.marks, meter.noted)
    try:
        played = replay(timeline, parse_alloc_conf(alloc_conf))
    except MemcalcError as error:
        raise Unmeasurable(f"the allocator's record cannot be replayed: {error}") from None
    if played.peak_allocated != meter.peak_allocated or played.peak_at is None:
        raise Unmeasurable(
            f"the allocator's record, replayed, reaches {played.peak_allocated:,} bytes allocated where the counter "
            f"has {meter.peak_allocated or 0:,}: the blocks' sizes are not certain"
        )
    rows = timeline.alive_at(played.peak_at + 1)
    known = dict.fromkeys((*_TOLD, UNKNOWN), 0)
    for row in rows:
        known[timeline.categories[row]] += played.sizes[row]
    rows.sort(key=lambda row: (-played.sizes[row], row))
    largest = tuple(Block(played.sizes[row], timeline.categories[row], timeline.label(row)) for row in rows[:top])
    return AtPeak(played.peak_live, known, largest, played.peak_reserved)
