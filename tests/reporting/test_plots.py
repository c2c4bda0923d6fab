from pathlib import Path
from typing import Any

import pytest

from memcalc.allocator import replay
from memcalc.errors import BadFile
from memcalc.reporting.plots import _figure, memory_over_time, save_timeline
from memcalc.timeline import Timeline
from memcalc.units import GIB


def _timeline() -> Timeline:
    timeline = Timeline()
    timeline.phase("load")
    timeline.birth(GIB, "weights", "model", "weight")
    timeline.phase("forward")
    row = timeline.birth(2 * GIB, "activations", "model.layers.0", "mm")
    timeline.phase("backward")
    timeline.death(row)
    return timeline


def test_the_picture_says_phases_peak_and_categories() -> None:
    timeline = _timeline()
    _, axes = _figure(8, 4)
    memory_over_time(axes, timeline, replay(timeline))
    words = {text.get_text().strip() for text in axes.texts}
    assert words == {"load", "forward", "backward", "peak 3.00 GiB"}
    assert len(axes.get_legend_handles_labels()[1]) == 8
    assert axes.get_ylim()[1] > 3


def test_the_peak_is_on_the_picture_however_many_events_there_are() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    for number in range(5000):
        timeline.death(timeline.birth(2**20 if number != 3333 else GIB, "activations", "", "mm"))
    _, axes = _figure(8, 4)
    memory_over_time(axes, timeline, replay(timeline))
    paths: Any = [path for collection in axes.collections for path in collection.get_paths()]
    tops = [path.vertices[:, 1].max() for path in paths]
    assert max(tops) == pytest.approx(1.0)


def test_a_format_that_nobody_knows_is_refused_in_one_line(tmp_path: Path) -> None:
    timeline = _timeline()
    with pytest.raises(BadFile, match="not supported"):
        save_timeline(str(tmp_path / "memory.xyz"), timeline, replay(timeline), "title")
