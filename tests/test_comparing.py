"""The oracle's voice: where two streams part, in words."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memcalc.comparing import Difference, first_difference, only_on_one_side
from memcalc.timeline import Timeline
from tests.strategies import timelines


def _timeline(*events: int | tuple[int, str]) -> Timeline:
    """Births as (bytes, op), deaths as ~row."""
    timeline = Timeline()
    for event in events:
        if isinstance(event, tuple):
            timeline.birth(event[0], "activations", "layer", event[1])
        else:
            timeline.death(~event)
    return timeline


def _copied(timeline: Timeline) -> Timeline:
    other = Timeline()
    for name in Timeline.__slots__:
        setattr(other, name, copy.copy(getattr(timeline, name)))
    return other


def test_the_first_other_birth_is_named_with_its_neighbours() -> None:
    left = _timeline((512, "mm"), (64, "add"), (32, "mul"))
    right = _timeline((512, "mm"), (128, "add"), (32, "mul"))
    difference = first_difference(left, right, ("tape", "trace"))
    assert isinstance(difference, Difference)
    assert difference.summary == "birth 1: tape 64 B (0.1 KiB) layer: add, trace 128 B (0.1 KiB) layer: add"
    assert [line.startswith("→") for line in difference.context].index(True) == 1
    assert str(difference).splitlines()[0] == difference.summary


def test_a_missing_birth_is_nothing() -> None:
    difference = first_difference(_timeline((8, "a")), _timeline((8, "a"), (9, "b")))
    assert difference is not None
    assert difference.summary == "birth 1: left nothing, right 9 B (0.0 KiB) layer: b"


def test_who_dies_earlier_is_named_by_the_side_that_frees_it() -> None:
    left = _timeline((8, "a"), ~0, (9, "b"))
    right = _timeline((8, "a"), (9, "b"), ~0)
    difference = first_difference(left, right, ("tape", "trace"))
    assert difference is not None
    assert difference.summary == "before birth 1: only tape frees #0 8 B (0.0 KiB) layer: a"


def test_the_order_of_deaths_between_two_births_is_the_destructors_business() -> None:
    left = _timeline((8, "a"), (9, "b"), ~0, ~1, (7, "c"))
    right = _timeline((8, "a"), (9, "b"), ~1, ~0, (7, "c"))
    assert first_difference(left, right) is None


def test_a_death_at_the_very_end_counts() -> None:
    assert first_difference(_timeline((8, "a"), ~0), _timeline((8, "a"))) is not None


def test_a_phase_that_begins_at_another_birth_is_a_difference() -> None:
    left, right = _timeline((8, "a")), _timeline((8, "a"))
    left.phase("forward")
    left.birth(9, "activations", "layer", "b")
    right.birth(9, "activations", "layer", "b")
    right.phase("forward")
    difference = first_difference(left, right, ("tape", "trace"))
    assert difference is not None
    assert difference.summary == "before birth 1: tape phase forward, trace nothing"


def test_an_emptied_cache_is_a_difference() -> None:
    left, right = _timeline((8, "a")), _timeline((8, "a"))
    left.empty_cache()
    assert first_difference(left, right) is not None


def test_labels_and_categories_are_no_difference() -> None:
    left, right = _timeline((8, "a")), _timeline((8, "b"))
    right.categories[0] = "weights"
    assert first_difference(left, right) is None


def test_blocks_alive_on_one_side_only_are_matched_by_size() -> None:
    left = _timeline((8, "a"), (9, "b"), (9, "c"), (7, "d"))
    right = _timeline((9, "x"), (6, "y"), (9, "z"), (7, "d"))
    mine, theirs = only_on_one_side(left, right, 3)
    assert mine == ["8 B (0.0 KiB) layer: a"]
    assert theirs == ["6 B (0.0 KiB) layer: y"]
    assert only_on_one_side(left, left, 99) == ([], [])


@given(timelines())
def test_a_stream_is_like_itself(timeline: Timeline) -> None:
    assert first_difference(timeline, _copied(timeline)) is None


@given(timelines(), st.data())
def test_one_other_size_is_found_where_it_is(timeline: Timeline, data: Any) -> None:
    if not timeline.nbytes:
        return
    row = data.draw(st.integers(0, len(timeline.nbytes) - 1))
    other = _copied(timeline)
    other.nbytes[row] += 1
    for one, two in ((timeline, other), (other, timeline)):
        difference = first_difference(one, two)
        assert difference is not None
        assert difference.summary.startswith(f"birth {row}:")


@given(timelines(), st.data())
def test_one_block_that_lives_on_is_found(timeline: Timeline, data: Any) -> None:
    deaths = [at for at, event in enumerate(timeline.events) if event < 0]
    if not deaths:
        return
    other, gone = _copied(timeline), data.draw(st.sampled_from(deaths))
    del other.events[gone]
    other.marks = [mark._replace(at=mark.at - (mark.at > gone)) for mark in other.marks]
    assert first_difference(timeline, other) is not None
    assert first_difference(other, timeline) is not None
