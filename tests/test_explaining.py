import dataclasses

import pytest

from memcalc.timeline import Timeline
from tests.explaining import reason
from tests.figures import Figure, Row, rows
from tests.peaks import blocks_at_peak

ROWS = {row.id: row for row in rows()}
PEAK = Figure("peak allocated", measured=100, predicted=90, bar=0.05)


def test_a_figure_is_missed_beyond_its_bar_and_never_without_one() -> None:
    assert PEAK.error == pytest.approx(-0.1)
    assert PEAK.missed
    assert not dataclasses.replace(PEAK, bar=0.1).missed
    assert not dataclasses.replace(PEAK, bar=None).missed


def counted(row: Row) -> int:
    why = reason(row, PEAK)
    assert why is not None
    assert why.nbytes is not None
    return why.nbytes


def test_a_version_that_keeps_the_logits_too_explains_one_copy_more() -> None:
    older, newer = ROWS["fms-0518"], ROWS["fms-0745"]
    assert (older.versions["transformers"], newer.versions["transformers"]) == ("4.45.2", "4.48.1")
    assert counted(older) - counted(newer) == 4 * 4096 * 32008 * 2


def test_blocks_at_a_peak_are_summed_over_layers_and_phases_have_their_own() -> None:
    timeline = Timeline()
    timeline.phase("forward")
    for layer in range(3):
        timeline.birth(1024, "activations", f"model.layers.{layer}.mlp", "mul")
    timeline.phase("backward")
    timeline.birth(8192, "gradients", "lm_head", "mm")
    assert list(blocks_at_peak(timeline, "forward")) == ["- 3.0 KiB: 3 × 1,024 B, activations, model.layers.*.mlp: mul"]
    assert next(iter(blocks_at_peak(timeline, None))) == "- 8.0 KiB: 1 × 8,192 B, gradients, lm_head: mm"
