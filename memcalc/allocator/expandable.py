"""Where the CUDA caching allocator puts blocks with expandable_segments:True: one growing segment a pool.

A segment is an address space as large as the card, of which pages are mapped as they are needed and unmapped by
empty_cache: of 2 MiB in the small pool, of 20 MiB (large_segment_size_mb) in the large one.
Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp, ExpandableSegment (map, unmap) and DeviceCachingAllocator:
get_free_block, find_expandable_block, map_block, try_allocate_expandable_block, should_split, unmap_block. The same in
all versions read, 2.1 to 2.13.
"""

from bisect import bisect_left, insort
from operator import attrgetter
from typing import Final

from memcalc.allocator.levels import spans
from memcalc.allocator.segments import NEVER, SMALL
from memcalc.allocator.settings import MIN_BLOCK, AllocatorSettings
from memcalc.timeline import Timeline
from memcalc.units import MIB

_SPACE = 1 << 46  # 1 1/8 of the card's memory in truth; a replay knows no card, and never fills it


class _Block:
    """A stretch of the segment: in use, free, or without memory behind it."""

    __slots__ = ("address", "free", "left", "mapped", "right", "size")

    def __init__(self, address: int, size: int, left: "_Block | None", right: "_Block | None") -> None:
        self.address, self.size = address, size
        self.left, self.right = left, right
        self.mapped, self.free = True, False
        if left is not None:
            left.right = self
        if right is not None:
            right.left = self


_by_address = attrgetter("address")


class _Pool:
    """One pool's segment: its free blocks by (size, address), its unmapped stretches by address."""

    def __init__(self, page: int, settings: AllocatorSettings) -> None:
        self.page: Final = page
        self.oversize: Final = settings.max_split_size or NEVER
        self.rounding: Final = settings.max_non_split_rounding
        self.keys: list[int] = []  # size << 48 | address of the free blocks, in order
        self.blocks: list[_Block] = []  # the free blocks themselves
        self.unmapped: list[_Block] = []
        self.mapped_bytes = 0

    def allocate(self, size: int) -> _Block:
        """A block of `size`, exactly: what remains of 512 bytes or more is always split off."""
        block = self._best_fit(size) or self._expanded(size)
        if block.size - size < MIN_BLOCK:
            return block
        front = _Block(block.address, size, block.left, block)
        block.address += size
        block.size -= size
        self._insert(block)
        return front

    def release(self, block: _Block) -> None:
        """The block is free again, one with its free neighbours."""
        self._merge(block)
        self._insert(block)

    def empty_cache(self) -> None:
        """Pages without a block in use lose their memory."""
        for block in self.blocks.copy():
            start = -(-block.address // self.page) * self.page
            stop = (block.address + block.size) // self.page * self.page
            if start < stop:
                self._unmap(block, start, stop)

    def _best_fit(self, size: int) -> _Block | None:
        """The smallest free block, where one that can grow counts with the room it can grow into."""
        i = bisect_left(self.keys, size << 48)
        if i == len(self.keys):
            return None
        while i + 1 < len(self.keys) and _reach(self.blocks[i + 1]) < _reach(self.blocks[i]):
            i += 1
        found = self.blocks[i].size
        if found >= (self.oversize if size < self.oversize else size + self.rounding):
            return None
        return self._remove(self.blocks[i])

    def _expanded(self, size: int) -> _Block:
        """A block at the lowest address where free and unmapped stretches are large enough together, now mapped."""
        if not self.unmapped:
            self.unmapped.append(_unmapped(_Block(0, _SPACE, None, None)))
        starts = (block.left if block.left is not None and block.left.free else block for block in self.unmapped)
        block = next(start for start in starts if _room(start, size))
        if not block.mapped:
            self._map(block, min(block.size, size))
        while block.size < size:
            behind = block.right
            assert behind is not None
            self._map(behind, min(behind.size, size - block.size))
            block = behind
        return self._remove(block)

    def _map(self, block: _Block, size: int) -> None:
        """Memory behind the first `size` bytes of an unmapped stretch, in whole pages; it is a free block then."""
        nbytes = -(-size // self.page) * self.page
        self.unmapped.remove(block)
        if nbytes < block.size:
            rest = _unmapped(_Block(block.address + nbytes, block.size - nbytes, block, block.right))
            insort(self.unmapped, rest, key=_by_address)
        block.size, block.mapped = nbytes, True
        self.mapped_bytes += nbytes
        self.release(block)

    def _unmap(self, block: _Block, start: int, stop: int) -> None:
        """Take the pages from `start` to `stop` out of a free block; what is left on either side stays free."""
        self._remove(block)
        if block.address < start:
            self._insert(_Block(block.address, start - block.address, block.left, block))
        if stop < block.address + block.size:
            self._insert(_Block(stop, block.address + block.size - stop, block, block.right))
        block.address, block.size, block.mapped = start, stop - start, False
        self.mapped_bytes -= block.size
        for gap in (block.left, block.right):
            if gap is not None and not gap.mapped:
                self.unmapped.remove(gap)
                _absorb(block, gap)
        insort(self.unmapped, block, key=_by_address)

    def _merge(self, block: _Block) -> None:
        for neighbour in (block.left, block.right):
            if neighbour is not None and neighbour.free:
                self._remove(neighbour)
                _absorb(block, neighbour)

    def _insert(self, block: _Block) -> None:
        block.free = True
        key = block.size << 48 | block.address
        i = bisect_left(self.keys, key)
        self.keys.insert(i, key)
        self.blocks.insert(i, block)

    def _remove(self, block: _Block) -> _Block:
        block.free = False
        i = bisect_left(self.keys, block.size << 48 | block.address)
        del self.keys[i], self.blocks[i]
        return block


def place(timeline: Timeline, rounded: list[int], settings: AllocatorSettings) -> tuple[list[int], list[int]]:
    """The whole block that each row gets, and the most reserved in each span of the timeline."""
    small, large = _Pool(2 * MIB, settings), _Pool(settings.large_segment_size, settings)
    blocks: dict[int, _Block] = {}
    sizes = rounded.copy()
    reserved_peaks = []
    for span in spans(timeline):
        most = small.mapped_bytes + large.mapped_bytes
        for event in timeline.events[span.start : span.stop]:
            row = event if event >= 0 else ~event
            pool = small if rounded[row] <= SMALL else large
            if event < 0:
                pool.release(blocks.pop(row))
                continue
            blocks[row] = block = pool.allocate(rounded[row])
            sizes[row] = block.size
            most = max(most, small.mapped_bytes + large.mapped_bytes)
        reserved_peaks.append(most)
        if span.closed_by == "empty_cache":
            large.empty_cache()
            small.empty_cache()
    return sizes, reserved_peaks


def _unmapped(block: _Block) -> _Block:
    block.mapped = False
    return block


def _absorb(block: _Block, neighbour: _Block) -> None:
    """`block` covers its neighbour too, which is no more."""
    if neighbour is block.left:
        block.address, block.left = neighbour.address, neighbour.left
        if block.left is not None:
            block.left.right = block
    else:
        block.right = neighbour.right
        if block.right is not None:
            block.right.left = block
    block.size += neighbour.size


def _reach(block: _Block) -> int:
    """A free block's size, with the unmapped stretch that it can grow into."""
    behind = block.right
    return block.size + (behind.size if behind is not None and not behind.mapped else 0)


def _room(block: _Block | None, size: int) -> bool:
    """Whether free and unmapped stretches from here on are as large as `size` together."""
    nbytes = 0
    while nbytes < size and block is not None and (block.free or not block.mapped):
        nbytes += block.size
        block = block.right
    return nbytes >= size
