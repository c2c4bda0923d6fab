"""Where the CUDA caching allocator puts blocks, with ordinary segments: one cudaMalloc each.

Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp, DeviceCachingAllocator: malloc, get_free_block, should_split,
alloc_found_block, free_block, try_merge_blocks, get_allocation_size, release_blocks; BlockComparatorSize. The same in
all versions read, 2.1 to 2.13, but for the two sizes that became options (c10/core/AllocatorConfig.h).

The hot loop of every estimate: a step has 10⁴ to 10⁵ events. Free blocks are integers, size << 48 | address, in one
sorted list a pool, and their records lie in a second list at the same places. A record is a list of four:
[its key while it is free, else 0; address; left and right neighbour in the segment].
"""

from bisect import bisect_left
from typing import Any, TypeAlias

from memcalc.allocator.levels import spans
from memcalc.allocator.settings import AllocatorSettings
from memcalc.timeline import Timeline
from memcalc.units import MIB

Record: TypeAlias = list[Any]

SMALL = MIB  # kSmallSize: up to here a request belongs to the small pool
NEVER = 1 << 62  # larger than any block
_HALFWAY = 1 << 47  # addresses start here, with room on both sides


def place(
    timeline: Timeline, rounded: list[int], settings: AllocatorSettings, *, descending: bool
) -> tuple[list[int], list[int]]:
    """The whole block that each row gets, and the most reserved in each span of the timeline.

    `descending`: cudaMalloc hands out each segment below the older ones, which decides between free blocks of one size.
    """
    oversize = settings.max_split_size or NEVER
    edge: Record = [0, 0, None, None]  # stands left and right of every segment, and is never free
    small_keys, small_records = [NEVER << 48], [edge]
    large_keys, large_records = [NEVER << 48], [edge]
    record_of: list[Record] = [edge] * len(rounded)
    sizes = rounded.copy()
    cursor, reserved, reserved_peaks = _HALFWAY, 0, []
    events = timeline.events
    for span in spans(timeline):
        most = reserved
        for event in events[span.start : span.stop]:
            if event >= 0:
                size = rounded[event]
                if size <= SMALL:
                    keys, records, least = small_keys, small_records, 512
                else:
                    keys, records, least = large_keys, large_records, SMALL + 1
                i = bisect_left(keys, size << 48)  # the best fit: smallest, then lowest address
                found = keys[i] >> 48
                if found < oversize:
                    rest = found - size
                    if rest >= least:  # the request takes the front, the rest stays free
                        record = records[i]
                        _, address, left, _ = record
                        left[3] = record[2] = record_of[event] = [0, address, left, record]
                        record[1] = address = address + size
                        record[0] = key = rest << 48 | address
                        if i and keys[i - 1] > key:
                            del keys[i], records[i]
                            i = bisect_left(keys, key, 0, i)
                            keys.insert(i, key)
                            records.insert(i, record)
                        else:
                            keys[i] = key
                        continue
                    del keys[i]
                    record_of[event] = record = records.pop(i)
                    record[0] = 0
                    if rest:
                        sizes[event] = found
                elif size >= oversize and found < size + settings.max_non_split_rounding:
                    del keys[i]
                    record_of[event] = record = records.pop(i)
                    record[0] = 0
                    sizes[event] = found
                else:
                    segment = _segment_size(size, settings)
                    reserved += segment
                    most = max(most, reserved)
                    cursor += -segment if descending else segment
                    address = cursor if descending else cursor - segment
                    record_of[event] = record = [0, address, edge, edge]
                    rest = segment - size
                    if rest >= least and size < oversize:
                        address += size
                        key = rest << 48 | address
                        record[3] = behind = [key, address, record, edge]
                        i = bisect_left(keys, key)
                        keys.insert(i, key)
                        records.insert(i, behind)
                    else:
                        sizes[event] = segment
            else:
                row = ~event
                size = sizes[row]
                if size <= SMALL:
                    keys, records = small_keys, small_records
                else:
                    keys, records = large_keys, large_records
                record = record_of[row]
                _, address, left, right = record
                if key := right[0]:
                    i = bisect_left(keys, key)
                    size += key >> 48
                    if key := left[0]:  # three become one, known by the left record
                        del keys[i], records[i]
                        i = bisect_left(keys, key)
                        size += key >> 48
                        record, right = left, right[3]
                        address = record[1]
                        record[3] = right
                        right[2] = record
                    else:
                        record = right
                        record[1], record[2] = address, left
                        left[3] = record
                elif key := left[0]:
                    i = bisect_left(keys, key)
                    size += key >> 48
                    record = left
                    address = record[1]
                    record[3] = right
                    right[2] = record
                else:
                    record[0] = key = size << 48 | address
                    i = bisect_left(keys, key)
                    keys.insert(i, key)
                    records.insert(i, record)
                    continue
                record[0] = key = size << 48 | address
                if keys[i + 1] < key:
                    del keys[i], records[i]
                    i = bisect_left(keys, key, i)
                    keys.insert(i, key)
                    records.insert(i, record)
                else:
                    keys[i] = key
        reserved_peaks.append(most)
        if span.closed_by == "empty_cache":
            for keys, records in ((small_keys, small_records), (large_keys, large_records)):
                reserved -= _release(keys, records, edge)
    return sizes, reserved_peaks


def _segment_size(size: int, settings: AllocatorSettings) -> int:
    if size <= SMALL:
        return 2 * MIB
    if size < 10 * MIB:
        return settings.large_segment_size
    return -(-size // (2 * MIB)) * 2 * MIB


def _release(keys: list[int], records: list[Record], edge: Record) -> int:
    """Give back the segments that are one free block; their bytes."""
    whole = [i for i, record in enumerate(records) if record[2] is edge and record[3] is edge]
    released = sum(keys[i] >> 48 for i in whole)
    for i in reversed(whole):
        del keys[i], records[i]
    return released
