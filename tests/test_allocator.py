"""Examples worked by hand from the source of PyTorch's allocator, c10/cuda/CUDACachingAllocator.cpp."""

from memcalc.allocator import AllocatorSettings, Levels, cpu_replay, live_levels, parse_alloc_conf, replay
from memcalc.timeline import Timeline
from memcalc.units import MIB

EXPANDABLE = AllocatorSettings(expandable_segments=True)


def births(timeline: Timeline, *sizes: int) -> list[int]:
    return [timeline.birth(size, "activations", "", "op") for size in sizes]


def deaths(timeline: Timeline, *rows: int) -> None:
    for row in rows:
        timeline.death(row)


def reserved(timeline: Timeline, settings: AllocatorSettings | None = None) -> int | None:
    return replay(timeline, settings or AllocatorSettings()).peak_reserved


def test_a_small_tensor_takes_512_bytes_of_a_2_mib_segment() -> None:
    timeline = Timeline()
    births(timeline, 100)
    result = replay(timeline)
    assert (result.sizes, result.rounded) == ([512], [512])
    assert (result.peak_allocated, result.peak_reserved) == (512, 2 * MIB)


def test_1_mib_is_small_and_one_byte_more_is_large() -> None:
    timeline = Timeline()
    births(timeline, MIB, MIB)
    assert reserved(timeline) == 2 * MIB
    births(timeline, MIB + 1)
    assert reserved(timeline) == 22 * MIB


def test_requests_below_10_mib_are_cut_from_20_mib_and_larger_ones_get_multiples_of_2_mib() -> None:
    for size, segment in ((10 * MIB - 512, 20 * MIB), (10 * MIB, 10 * MIB), (10 * MIB + 1, 12 * MIB)):
        timeline = Timeline()
        births(timeline, size)
        assert reserved(timeline) == segment


def test_a_large_block_keeps_a_remainder_of_1_mib_and_gives_up_a_larger_one() -> None:
    timeline = Timeline()
    births(timeline, 11 * MIB, 11 * MIB - 512)
    result = replay(timeline)
    assert result.sizes == [12 * MIB, 11 * MIB - 512]
    assert (result.peak_allocated, result.peak_live) == (23 * MIB - 512, 22 * MIB - 512)


def test_the_smallest_free_block_that_fits_is_taken() -> None:
    timeline = Timeline()
    wide, narrow = births(timeline, 40 * MIB, 30 * MIB)
    deaths(timeline, wide, narrow)
    births(timeline, 29 * MIB, 40 * MIB)
    assert reserved(timeline) == 70 * MIB
    assert replay(timeline).sizes[2] == 30 * MIB


def test_between_equal_blocks_the_lower_address_decides_and_a_later_segment_lies_lower() -> None:
    """The older segment holds 12 MiB free and 12 in use, the younger 12 free. Taking the younger's leaves the older
    to become one free block of 24.
    """
    timeline = Timeline()
    deaths(timeline, *births(timeline, 24 * MIB))
    front, back = births(timeline, 12 * MIB, 12 * MIB)
    younger = births(timeline, 12 * MIB)
    deaths(timeline, front, *younger)
    births(timeline, 12 * MIB)
    deaths(timeline, back)
    births(timeline, 24 * MIB)
    assert replay(timeline).peak_reserved == 36 * MIB
    assert replay(timeline, descending=False).peak_reserved == 60 * MIB


def test_free_neighbours_become_one_block() -> None:
    timeline = Timeline()
    deaths(timeline, *births(timeline, 60 * MIB))
    rows = births(timeline, 20 * MIB, 20 * MIB, 20 * MIB)
    deaths(timeline, rows[0], rows[2], rows[1])
    births(timeline, 60 * MIB)
    assert reserved(timeline) == 60 * MIB


def test_segments_are_never_joined() -> None:
    timeline = Timeline()
    deaths(timeline, *births(timeline, 30 * MIB, 30 * MIB))
    births(timeline, 60 * MIB)
    assert reserved(timeline) == 120 * MIB


def test_empty_cache_gives_back_segments_without_a_block_in_use() -> None:
    timeline = Timeline()
    timeline.phase("history")
    kept, dropped, whole = births(timeline, 3 * MIB, 3 * MIB, 50 * MIB)
    deaths(timeline, dropped, whole)
    timeline.empty_cache()
    timeline.phase("forward")
    births(timeline, 60 * MIB)
    result = replay(timeline)
    assert result.phases["history"].reserved_peak == 70 * MIB
    assert result.phases["forward"].reserved_peak == 80 * MIB
    assert kept == 0


def test_a_phase_has_its_peak_its_end_and_what_was_resident_before() -> None:
    timeline = Timeline()
    timeline.phase("load")
    births(timeline, 4 * MIB)
    timeline.phase("forward")
    deaths(timeline, *births(timeline, 2 * MIB))
    timeline.phase("backward")
    result = replay(timeline)
    assert list(result.phases) == ["load", "forward", "backward"]
    assert result.phases["forward"] == Levels(4 * MIB, 6 * MIB, 20 * MIB)
    assert result.phases["backward"] == Levels(4 * MIB, 4 * MIB, 20 * MIB)


def test_a_phase_ends_where_its_level_is_read() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    logits = births(timeline, 2 * MIB)
    timeline.phase_end()
    deaths(timeline, *logits)
    timeline.phase("backward")
    assert replay(timeline).phases["forward"].allocated_end == 2 * MIB


def test_a_repeated_phase_has_the_highest_peak_and_the_last_end() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    first = births(timeline, 8 * MIB)
    timeline.phase_end()
    timeline.phase("backward")
    deaths(timeline, *first)
    timeline.phase("forward")
    births(timeline, 2 * MIB)
    assert replay(timeline).phases["forward"][:2] == (2 * MIB, 8 * MIB)


def test_history_counts_for_reserved_and_not_for_allocated() -> None:
    timeline = Timeline()
    timeline.phase("history")
    deaths(timeline, *births(timeline, 100 * MIB))
    timeline.phase("forward")
    row = births(timeline, 10 * MIB)
    result = replay(timeline)
    assert (result.peak_allocated, result.peak_reserved) == (10 * MIB, 100 * MIB)
    assert (result.peak_phase, timeline.events[result.peak_at or 0]) == ("forward", row[0])


def test_the_peak_is_the_birth_that_first_reaches_it() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    first = births(timeline, 4 * MIB)
    deaths(timeline, *first)
    births(timeline, 4 * MIB)
    assert replay(timeline).peak_at == 0


def test_a_peak_that_history_leaves_behind_stands_from_its_last_event_on() -> None:
    timeline = Timeline()
    timeline.phase("history")
    kept = births(timeline, 6 * MIB, 2 * MIB)
    timeline.phase("forward")
    deaths(timeline, *kept)
    result = replay(timeline)
    assert (result.peak_allocated, result.peak_phase, result.peak_at) == (8 * MIB, "forward", 1)
    assert timeline.alive_at(2) == kept


def test_a_timeline_without_events_has_no_peak() -> None:
    result = replay(Timeline())
    assert (result.peak_allocated, result.peak_at, result.peak_phase, result.peak_reserved) == (0, None, None, 0)


def test_events_before_the_first_phase_count() -> None:
    timeline = Timeline()
    births(timeline, 4 * MIB)
    result = replay(timeline)
    assert (result.peak_allocated, result.peak_phase, result.phases) == (4 * MIB, None, {})


def test_live_levels_are_those_of_rounded_requests() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    births(timeline, 11 * MIB, 100)
    result = live_levels(timeline)
    assert result.peak_live == result.peak_allocated == 11 * MIB + 512 == replay(timeline).peak_live
    assert result.peak_reserved is None
    assert result.phases["forward"].reserved_peak is None


def test_the_cpu_rounds_nothing_and_reserves_nothing() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    births(timeline, 100, 3)
    result = cpu_replay(timeline)
    assert result.phases == {"forward": Levels(103, 103, None)}
    assert (result.peak_allocated, result.peak_live, result.peak_reserved) == (103, 103, None)


def test_expandable_segments_grow_by_pages_and_keep_no_remainder() -> None:
    timeline = Timeline()
    births(timeline, 11 * MIB)
    assert (reserved(timeline, EXPANDABLE), replay(timeline, EXPANDABLE).sizes) == (20 * MIB, [11 * MIB])
    births(timeline, 29 * MIB)
    assert reserved(timeline, EXPANDABLE) == 40 * MIB
    births(timeline, 512)
    assert reserved(timeline, EXPANDABLE) == 42 * MIB


def test_expandable_segments_lose_the_pages_that_are_free_from_end_to_end() -> None:
    timeline = Timeline()
    timeline.phase("history")
    _, dropped = births(timeline, 2 * MIB, 38 * MIB)
    deaths(timeline, dropped)
    timeline.empty_cache()
    timeline.phase("forward")
    births(timeline, 18 * MIB)
    phases = replay(timeline, EXPANDABLE).phases
    assert (phases["history"].reserved_peak, phases["forward"].reserved_peak) == (40 * MIB, 20 * MIB)


def test_expandable_segments_map_again_where_they_lost_pages() -> None:
    """Pages 0 to 2, of which the middle one is lost: the next 20 MiB fill the gap, and 30 more go behind page 2."""
    timeline = Timeline()
    first, middle, last = births(timeline, 20 * MIB, 20 * MIB, 20 * MIB)
    deaths(timeline, middle)
    timeline.empty_cache()
    timeline.phase("forward")
    births(timeline, 20 * MIB)
    births(timeline, 30 * MIB)
    assert replay(timeline, EXPANDABLE).phases["forward"].reserved_peak == 100 * MIB
    assert (first, last) == (0, 2)


def test_expandable_segments_spare_the_block_that_can_grow() -> None:
    """Free: 8 MiB in the middle and 6 at the end. 5 MiB take the larger, since the last can still grow to 26."""
    timeline = Timeline()
    _, hole, _ = births(timeline, 3 * MIB, 8 * MIB, 3 * MIB)
    deaths(timeline, hole)
    births(timeline, 5 * MIB, 26 * MIB)
    assert reserved(timeline, EXPANDABLE) == 40 * MIB


def test_blocks_above_max_split_size_are_never_split() -> None:
    settings = parse_alloc_conf("max_split_size_mb:100")
    timeline = Timeline()
    deaths(timeline, *births(timeline, 200 * MIB))
    births(timeline, 50 * MIB)  # not from a block that must not be split
    assert reserved(timeline, settings) == 250 * MIB
    births(timeline, 180 * MIB)  # nor this: 20 MiB would be lost
    assert reserved(timeline, settings) == 430 * MIB
    births(timeline, 181 * MIB)
    result = replay(timeline, settings)
    assert (result.peak_reserved, result.sizes[3]) == (430 * MIB, 200 * MIB)


def test_requests_are_rounded_to_parts_of_a_power_of_two() -> None:
    two, four = (parse_alloc_conf(f"roundup_power2_divisions:{n}") for n in (2, 4))
    assert two.rounded([1200, 1024, 900]) == [1536, 1024, 1024]
    assert four.rounded([1200, 5 * MIB + 1, 8 * MIB]) == [1536, 6 * MIB, 8 * MIB]


def test_divisions_differ_by_interval() -> None:
    settings = parse_alloc_conf("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]")
    assert settings.rounded([257 * MIB + 1]) == [257 * MIB + 512]
    assert settings.rounded([513 * MIB, 1025 * MIB, 2049 * MIB]) == [768 * MIB, 1280 * MIB, 2304 * MIB]
