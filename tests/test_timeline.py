"""The list of blocks that decides everything."""

import pytest
from hypothesis import given

from memcalc.timeline import CATEGORIES, Mark, Timeline
from tests.strategies import timelines


def _three() -> Timeline:
    timeline = Timeline()
    timeline.phase("load")
    timeline.birth(100, "weights", "model.embed", "weight")
    timeline.birth(50, "activations", "", "mm")
    timeline.death(1)
    timeline.phase_end()
    timeline.birth(7, "workspace", "model", "sqrt")
    timeline.empty_cache()
    return timeline


def test_blocks_are_numbered_by_birth_and_events_say_both() -> None:
    timeline = _three()
    assert timeline.events == [0, 1, ~1, 2]
    assert timeline.nbytes == [100, 50, 7]
    assert timeline.marks == [Mark(0, "phase", "load"), Mark(3, "phase_end"), Mark(4, "empty_cache")]


def test_a_label_is_the_module_and_the_op() -> None:
    timeline = _three()
    assert [timeline.label(row) for row in range(3)] == ["model.embed: weight", "mm", "model: sqrt"]


@pytest.mark.parametrize(("at", "rows"), [(0, []), (1, [0]), (2, [0, 1]), (3, [0]), (4, [0, 2]), (99, [0, 2])])
def test_who_is_alive_before_an_event(at: int, rows: list[int]) -> None:
    assert _three().alive_at(at) == rows


def test_bytes_by_category_have_all_keys_and_the_sizes_that_are_given() -> None:
    timeline = _three()
    assert timeline.bytes_by_category([0, 2], [1000, 0, 30]) == {
        **dict.fromkeys(CATEGORIES, 0), "weights": 1000, "workspace": 30,
    }  # fmt: skip


@given(timelines())
def test_the_alive_are_the_born_without_the_dead(timeline: Timeline) -> None:
    for at in range(len(timeline.events) + 1):
        born = [event for event in timeline.events[:at] if event >= 0]
        dead = {~event for event in timeline.events[:at] if event < 0}
        assert timeline.alive_at(at) == [row for row in born if row not in dead]


@given(timelines())
def test_categories_of_the_alive_sum_to_their_bytes(timeline: Timeline) -> None:
    alive = timeline.alive_at(len(timeline.events))
    by_category = timeline.bytes_by_category(alive, timeline.nbytes)
    assert sum(by_category.values()) == sum(timeline.nbytes[row] for row in alive)
