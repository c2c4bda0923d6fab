from typing import Any

import pytest

from memcalc.allocator import replay
from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.meter import Noted
from memcalc.profiling.stream import timeline_of


def alloc(address: int, nbytes: int, *frames: tuple[str, str]) -> dict[str, Any]:
    found = [{"filename": file, "line": 7, "name": name} for file, name in frames]
    return {"action": "alloc", "addr": address, "size": nbytes, "frames": found}


def free(address: int) -> list[dict[str, Any]]:
    return [{"action": action, "addr": address} for action in ("free_requested", "free_completed")]


def test_blocks_are_rows_and_marks_stand_where_the_counters_stood() -> None:
    entries = [
        {"action": "segment_alloc", "addr": 0, "size": 2097152},
        alloc(1, 100),
        alloc(2, 200),
        *free(1),
        alloc(1, 300),
        {"action": "snapshot", "size": 0},
    ]
    marks = [(0, "phase", "load"), (2, "phase_end", ""), (3, "phase", "forward")]
    timeline = timeline_of(entries, marks, [])
    assert timeline.nbytes == [100, 200, 300]
    assert timeline.events == [0, 1, ~0, 2]
    assert [(mark.at, mark.name or mark.kind) for mark in timeline.marks] == [
        (0, "load"),
        (2, "phase_end"),
        (3, "forward"),
    ]


def test_a_category_belongs_to_the_block_that_lay_there_at_the_time() -> None:
    entries = [alloc(1, 100), *free(1), alloc(1, 200), *free(1), alloc(1, 300)]
    timeline = timeline_of(
        entries, [], [Noted(3, "gradients", frozenset({1, 99})), Noted(5, "weights", frozenset({1}))]
    )
    assert timeline.categories == ["unknown", "gradients", "weights"]


def test_the_cache_is_emptied_where_segments_go_back() -> None:
    gone = {"action": "segment_free", "addr": 0, "size": 1}
    large = 30 * 2**20
    entries = [alloc(1, large), *free(1), gone, gone, alloc(2, 2 * large)]
    timeline = timeline_of(entries, [(0, "phase", "load")], [])
    assert [mark.kind for mark in timeline.marks] == ["phase", "empty_cache"]
    assert replay(timeline).peak_reserved == 2 * large


def test_a_block_that_was_never_handed_out_is_a_gap() -> None:
    with pytest.raises(Unmeasurable, match="gaps"):
        timeline_of([*free(1)], [], [])


def test_counters_that_saw_more_than_the_record_holds_are_a_gap() -> None:
    with pytest.raises(Unmeasurable, match="gaps"):
        timeline_of([alloc(1, 100)], [(2, "phase", "load")], [])


def test_a_label_is_the_innermost_line_that_is_not_torchs() -> None:
    torch_line, model_line = (
        ("/venv/torch/nn/functional.py", "linear"),
        ("/venv/transformers/modeling_llama.py", "forward"),
    )
    timeline = timeline_of([alloc(1, 1, torch_line, model_line), alloc(2, 1, torch_line), alloc(3, 1)], [], [])
    assert [op for _, op in timeline.labels] == ["modeling_llama.py:7 forward", "backward", "block"]
