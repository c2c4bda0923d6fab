from typing import Any

import pytest

from memcalc.reporting.memory_viz import snapshot
from memcalc.timeline import Timeline


def _timeline() -> Timeline:
    timeline = Timeline()
    timeline.phase("load")
    timeline.birth(1000, "weights", "model.embed", "weight")
    timeline.phase("forward")
    row = timeline.birth(5000, "activations", "model.layers.0", "mm")
    timeline.death(row)
    return timeline


def test_every_birth_and_death_is_an_event_and_what_is_alive_a_segment() -> None:
    taken = snapshot(_timeline(), [1024, 5120])
    actions = [(entry["action"], entry["size"]) for entry in taken["device_traces"][0]]
    assert actions == [("alloc", 1024), ("alloc", 5120), ("free_requested", 5120), ("free_completed", 5120)]
    assert [segment["total_size"] for segment in taken["segments"]] == [1024]
    assert taken["device_traces"][0][0]["frames"][0] == {"name": "weight", "filename": "model.embed", "line": 0}


def test_phases_are_the_viewers_annotations() -> None:
    said = [
        (note["stage"], note["name"], note["time_us"])
        for note in snapshot(_timeline(), [1024, 5120])["external_annotations"]
    ]
    assert said == [("START", "load", 0), ("END", "load", 1), ("START", "forward", 1), ("END", "forward", 3)]


def test_torchs_own_viewer_reads_it() -> None:
    viewer: Any = pytest.importorskip("torch.cuda._memory_viz")
    taken = snapshot(_timeline(), [1024, 5120])
    said = viewer.trace(taken)
    assert "4 entries" in said
    assert "free completed for b 5.0KiB" in said
    assert viewer.trace_plot(taken).startswith("\n<!DOCTYPE html>") or "<html" in viewer.trace_plot(taken)
    assert viewer.segsum(taken)
