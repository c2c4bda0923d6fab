"""Laws of the allocator, and its replay beside a slow one whose state can be looked at."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.allocator import AllocatorSettings, cpu_replay, live_levels, parse_alloc_conf, replay
from memcalc.timeline import Timeline
from memcalc.units import MIB

CONFS = [
    "",
    "max_split_size_mb:20",
    "max_split_size_mb:24,max_non_split_rounding_mb:21",
    "large_segment_size_mb:12",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[1:2,4:8,>:1],max_split_size_mb:32",
    "expandable_segments:True",
    "expandable_segments:True,max_split_size_mb:20",
    "expandable_segments:True,large_segment_size_mb:12,roundup_power2_divisions:2",
]
SETTINGS = [parse_alloc_conf(conf) for conf in CONFS]
in_every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=CONFS)

FREE, GAP = "free", "gap"  # a gap has no memory behind it


@dataclass
class Stretch:
    start: int
    size: int
    state: int | str  # the row that lies here, FREE or GAP

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass
class SlowPool:
    """A pool as lists of stretches in order of address, one list a segment; each question is answered by looking at
    all of them.
    """

    small: bool
    settings: AllocatorSettings
    descending: bool
    segments: list[list[Stretch]] = field(default_factory=list)
    cursor: int = 0

    def reserved(self) -> int:
        return sum(s.size for segment in self.segments for s in segment if s.state != GAP)

    def birth(self, row: int, size: int) -> int:
        segment, stretch = self.best_fit(size) or self.more_memory(size)
        rest = stretch.size - size
        limit = self.settings.max_split_size
        if self.small or self.settings.expandable_segments:
            split = rest >= 512
        else:
            split = rest > MIB and (limit is None or size < limit)
        if split:
            segment.insert(segment.index(stretch) + 1, Stretch(stretch.start + size, rest, FREE))
            stretch.size = size
        stretch.state = row
        return stretch.size

    def death(self, row: int) -> None:
        for segment in self.segments:
            for stretch in segment:
                if stretch.state == row:
                    stretch.state = FREE
            self.join(segment)

    def join(self, segment: list[Stretch]) -> None:
        joined: list[Stretch] = []
        for stretch in segment:
            if joined and joined[-1].state == stretch.state and stretch.state in {FREE, GAP}:
                joined[-1].size += stretch.size
            else:
                joined.append(stretch)
        segment[:] = joined

    def best_fit(self, size: int) -> tuple[list[Stretch], Stretch] | None:
        free = [(s.size, s.start, segment, s) for segment in self.segments for s in segment if s.state == FREE]
        fitting = sorted((item for item in free if item[0] >= size), key=lambda item: item[:2])
        if not fitting:
            return None
        chosen = fitting[0]
        for item in fitting[1:]:
            if self.reach(item[2], item[3]) >= self.reach(chosen[2], chosen[3]):
                break
            chosen = item
        limit = self.settings.max_split_size
        if limit is not None and size < limit <= chosen[0]:
            return None
        if limit is not None and size >= limit and chosen[0] >= size + self.settings.max_non_split_rounding:
            return None
        return chosen[2:]

    def reach(self, segment: list[Stretch], stretch: Stretch) -> int:
        behind = segment[segment.index(stretch) + 1 :][:1]
        return stretch.size + sum(s.size for s in behind if s.state == GAP)

    def more_memory(self, size: int) -> tuple[list[Stretch], Stretch]:
        if self.settings.expandable_segments:
            return self.expanded(size)
        if self.small:
            nbytes = 2 * MIB
        elif size < 10 * MIB:
            nbytes = self.settings.large_segment_size
        else:
            nbytes = -(-size // (2 * MIB)) * 2 * MIB
        self.cursor += -nbytes if self.descending else nbytes
        start = self.cursor if self.descending else self.cursor - nbytes
        self.segments.append([Stretch(start, nbytes, FREE)])
        return self.segments[-1], self.segments[-1][0]

    def expanded(self, size: int) -> tuple[list[Stretch], Stretch]:
        """From the first free stretch before a gap, or the gap itself, on: all mapped until `size` fit."""
        page = 2 * MIB if self.small else self.settings.large_segment_size
        if not self.segments:
            self.segments.append([Stretch(0, 2**40, GAP)])
        (segment,) = self.segments
        for i, gap in enumerate(segment):
            if gap.state != GAP:
                continue
            first = i - 1 if i and segment[i - 1].state == FREE else i
            run = list(itertools.takewhile(lambda s: s.state in {FREE, GAP}, segment[first:]))
            if sum(s.size for s in run) >= size:
                break
        start = run[0].start
        for stretch in run:
            have = stretch.start - start
            if stretch.state == GAP and have < size:
                mapped = min(-(-(size - have) // page) * page, stretch.size)
                if mapped < stretch.size:
                    segment.insert(segment.index(stretch) + 1, Stretch(stretch.start + mapped, 0, GAP))
                    segment[segment.index(stretch) + 1].size = stretch.size - mapped
                stretch.size, stretch.state = mapped, FREE
        self.join(segment)
        return segment, next(s for s in segment if s.start == start)

    def empty_cache(self) -> None:
        if not self.settings.expandable_segments:
            self.segments = [s for s in self.segments if [x.state for x in s] != [FREE]]
            return
        page = 2 * MIB if self.small else self.settings.large_segment_size
        for segment in self.segments:
            cut: list[Stretch] = []
            for stretch in segment:
                start, stop = -(-stretch.start // page) * page, stretch.stop // page * page
                if stretch.state == FREE and start < stop:
                    parts = [(stretch.start, start, FREE), (start, stop, GAP), (stop, stretch.stop, FREE)]
                    cut += [Stretch(a, b - a, state) for a, b, state in parts if a < b]
                else:
                    cut.append(stretch)
            self.join(cut)
            segment[:] = cut


@dataclass
class Slow:
    """Both pools, the size of each row, and what was reserved after each event."""

    small: SlowPool
    large: SlowPool
    sizes: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)


def slow_replay(timeline: Timeline, settings: AllocatorSettings, *, descending: bool = True) -> Iterator[Slow]:
    """The state after each event and each emptying of the cache."""
    slow = Slow(SlowPool(True, settings, descending), SlowPool(False, settings, descending))
    rounded = settings.rounded(timeline.nbytes)
    empties = [mark.at for mark in timeline.marks if mark.kind == "empty_cache"]
    for at, event in enumerate([*timeline.events, None]):
        for _ in range(empties.count(at)):
            slow.small.empty_cache()
            slow.large.empty_cache()
            yield slow
        if event is None:
            return
        row = event if event >= 0 else ~event
        pool = slow.small if rounded[row] <= MIB else slow.large
        if event >= 0:
            slow.sizes.append(pool.birth(row, rounded[row]))
        else:
            pool.death(row)
        slow.reserved.append(slow.small.reserved() + slow.large.reserved())
        yield slow


sizes = st.one_of(
    st.integers(1, 5000),
    st.integers(MIB - 2000, MIB + 2000),
    st.integers(2, 60).map(lambda n: n * 512 * 1024),
    st.integers(MIB, 45 * MIB),
    st.sampled_from([MIB, 2 * MIB, 10 * MIB - 512, 10 * MIB, 20 * MIB, 40 * MIB]),
)


@st.composite
def timelines(draw: st.DrawFn, *, emptied: bool = False) -> Timeline:
    """Births, deaths, phases and emptied caches in any order; `emptied`: at the end all is freed and given back."""
    timeline = Timeline()
    alive: list[int] = []
    palette = draw(st.lists(sizes, min_size=1, max_size=6))  # few sizes, so that freed blocks are asked for again
    for step in draw(st.lists(st.integers(0, 99), max_size=60)):
        if step < 45 or not alive:
            alive.append(timeline.birth(palette[step % len(palette)], "activations", "", "op"))
        elif step < 88:
            timeline.death(alive.pop(step * 7 % len(alive)))
        elif step < 94:
            timeline.empty_cache()
        else:
            timeline.phase(("history", "forward", "backward")[step % 3])
    if emptied:
        for row in alive:
            timeline.death(row)
        timeline.empty_cache()
        timeline.phase("optimizer")
    return timeline


@in_every_setting
@given(timeline=timelines(), descending=st.booleans())
def test_the_replay_agrees_with_the_slow_one(settings: AllocatorSettings, timeline: Timeline, descending: bool) -> None:
    final = Slow(SlowPool(True, settings, True), SlowPool(False, settings, True))
    for state in slow_replay(timeline, settings, descending=descending):
        final = state
    result = replay(timeline, settings, descending=descending)
    assert result.sizes == final.sizes
    assert result.peak_reserved == max(final.reserved, default=0)


@in_every_setting
@given(timeline=timelines())
def test_blocks_in_use_never_overlap_and_free_neighbours_are_always_one(
    settings: AllocatorSettings, timeline: Timeline
) -> None:
    for state in slow_replay(timeline, settings):
        for segment in (*state.small.segments, *state.large.segments):
            for left, right in itertools.pairwise(segment):
                assert left.stop == right.start
                assert left.state != right.state
            assert all(stretch.size > 0 for stretch in segment)


@in_every_setting
@given(timeline=timelines())
def test_a_block_is_as_large_as_its_request_and_reserved_holds_all_blocks(
    settings: AllocatorSettings, timeline: Timeline
) -> None:
    result = replay(timeline, settings)
    assert all(
        got >= asked >= wanted for got, asked, wanted in zip(result.sizes, result.rounded, timeline.nbytes, strict=True)
    )
    assert result.peak_live <= result.peak_allocated <= (result.peak_reserved or 0)
    for levels in result.phases.values():
        assert levels.allocated_end <= levels.allocated_peak <= (levels.reserved_peak or 0)
        assert (levels.reserved_peak or 0) <= (result.peak_reserved or 0)


@in_every_setting
@given(timeline=timelines(emptied=True))
def test_nothing_is_reserved_after_all_was_freed_and_the_cache_emptied(
    settings: AllocatorSettings, timeline: Timeline
) -> None:
    assert replay(timeline, settings).phases["optimizer"] == (0, 0, 0)


@in_every_setting
@given(timeline=timelines(), seed=st.randoms(use_true_random=False))
def test_the_order_of_deaths_between_two_births_changes_nothing(
    settings: AllocatorSettings, timeline: Timeline, seed: random.Random
) -> None:
    timeline.marks.clear()  # a mark between two deaths would tell them apart
    before = replay(timeline, settings)
    groups = [list(group) for _, group in itertools.groupby(timeline.events, key=lambda event: event < 0)]
    for group in groups:
        if group[0] < 0:
            seed.shuffle(group)
    timeline.events = [event for group in groups for event in group]
    after = replay(timeline, settings)
    assert (after.sizes, after.peak_reserved, after.peak_at) == (before.sizes, before.peak_reserved, before.peak_at)


@in_every_setting
@given(timeline=timelines())
def test_a_replay_leaves_the_timeline_as_it_was_and_repeats_itself(
    settings: AllocatorSettings, timeline: Timeline
) -> None:
    copy = (timeline.nbytes.copy(), timeline.events.copy(), timeline.marks.copy())
    assert replay(timeline, settings) == replay(timeline, settings)
    assert copy == (timeline.nbytes, timeline.events, timeline.marks)


@given(timeline=timelines())
def test_the_peak_stands_where_it_is_said_to_stand(timeline: Timeline) -> None:
    for result in (replay(timeline), live_levels(timeline), cpu_replay(timeline)):
        if result.peak_at is not None:
            alive = timeline.alive_at(result.peak_at + 1)
            assert sum(result.sizes[row] for row in alive) == result.peak_allocated


@in_every_setting
@given(timeline=timelines())
def test_live_levels_give_the_live_peak_of_the_replay(settings: AllocatorSettings, timeline: Timeline) -> None:
    assert live_levels(timeline, settings).peak_live == replay(timeline, settings).peak_live
