"""From a timeline to a footprint: one way for every producer."""

from typing import Any, Final

import pytest

from memcalc.allocator import replay
from memcalc.errors import InvalidWorkload
from memcalc.footprint import Footprint, Phase
from memcalc.recording import Recording, footprint_of
from memcalc.timeline import CATEGORIES, Timeline
from memcalc.units import MIB
from tests.tiny import tiny


def _timeline() -> Timeline:
    """Weights of 3 MiB; a history that climbs highest; a step whose backward does; a dropped output at the end."""
    timeline = Timeline()
    timeline.phase("load")
    timeline.birth(3 * MIB, "weights", "model", "weight")
    timeline.phase_end()
    timeline.phase("history")
    timeline.birth(50 * MIB, "activations", "model.layers.0", "mm")
    timeline.death(1)
    timeline.phase("forward")
    timeline.birth(5 * MIB, "activations", "model.layers.0", "mm")
    timeline.birth(100, "logits_loss", "", "loss")
    timeline.phase_end()
    timeline.phase("backward")
    timeline.birth(4 * MIB, "gradients", "model.layers.0", "mm")
    timeline.death(2)
    timeline.phase_end()
    timeline.death(3)
    timeline.phase("optimizer")
    timeline.phase_end()
    return timeline


def _footprint(timeline: Timeline, *, top: int = 0, **options: Any) -> Footprint:
    recording = Recording(timeline, 10, 4, 16, "eager", {"torch": "2.13.0"}, ("assumed",))
    return footprint_of(tiny(**options), recording, "trace", top=top, seconds=1.5)


MEASURED: Final = _footprint(_timeline(), top=2)


def test_the_peak_is_the_measured_steps_and_history_counts_for_reserved_alone() -> None:
    assert MEASURED.peak_phase == "backward"
    assert MEASURED.peak_live == 12 * MIB + 512
    assert MEASURED.peak_reserved == replay(_timeline()).peak_reserved
    assert MEASURED.peak_reserved is not None
    assert MEASURED.peak_reserved >= 53 * MIB


def test_phases_stand_in_the_contracts_order_without_history() -> None:
    assert [phase.name for phase in MEASURED.phases] == ["load", "forward", "backward", "optimizer"]
    assert MEASURED.phases[0] == Phase("load", 3 * MIB, 3 * MIB, 20 * MIB)


def test_a_phases_end_is_read_before_the_loop_drops_its_output() -> None:
    on_cpu = _footprint(_timeline(), device="cpu", dtype="fp32")
    backward, optimizer = on_cpu.phases[2:]
    assert backward.allocated_end == 7 * MIB + 100
    assert optimizer.allocated_end == 7 * MIB


def test_categories_at_the_peak_sum_to_it() -> None:
    assert MEASURED.at_peak is not None
    assert sum(MEASURED.at_peak.values()) == MEASURED.peak_allocated
    assert tuple(MEASURED.at_peak) == CATEGORIES
    assert MEASURED.at_peak["workspace"] == 0


def test_the_largest_blocks_are_those_of_the_peak_largest_first() -> None:
    assert [block.label for block in MEASURED.largest] == ["model.layers.0: mm", "model.layers.0: mm"]
    assert [block.category for block in MEASURED.largest] == ["activations", "gradients"]
    assert _footprint(_timeline()).largest == ()
    assert len(_footprint(_timeline(), top=99).largest) == 4


def test_what_the_device_holds_is_known_where_a_context_was_measured() -> None:
    t4 = _footprint(_timeline(), gpu="t4", dtype="fp16")
    assert t4.device_total is not None
    assert t4.peak_reserved is not None
    assert t4.device_total > t4.peak_reserved
    assert t4.unavailable == {}
    elsewhere = _footprint(_timeline(), gpu="24GiB")
    assert elsewhere.device_total is None
    assert "has not been measured" in elsewhere.unavailable["device_total"]


def test_on_the_cpu_nothing_is_rounded_and_nothing_reserved() -> None:
    on_cpu = _footprint(_timeline(), device="cpu", dtype="fp32")
    assert on_cpu.peak_allocated == on_cpu.peak_live == 12 * MIB + 100
    assert (on_cpu.peak_reserved, on_cpu.device_total) == (None, None)
    assert set(on_cpu.unavailable) == {"peak_reserved", "device_total"}
    assert all(phase.reserved_peak is None for phase in on_cpu.phases)


def test_the_allocators_settings_are_the_workloads() -> None:
    expandable = _footprint(_timeline(), alloc_conf="expandable_segments:True")
    assert expandable.peak_live == MEASURED.peak_live
    assert expandable.peak_reserved != MEASURED.peak_reserved


def test_what_the_producer_tells_is_passed_on() -> None:
    assert (MEASURED.producer, MEASURED.seconds, MEASURED.versions) == ("trace", 1.5, {"torch": "2.13.0"})
    assert (MEASURED.total_params, MEASURED.trainable_params, MEASURED.checkpoint_bytes) == (10, 4, 16)
    assert MEASURED.workload["attention_kernel"] == "eager"
    assert MEASURED.warnings == ("assumed",)
    assert _footprint(_timeline(), gpu="t4").warnings[-1] == "assumed"


def test_nothing_at_all_is_a_footprint_too() -> None:
    empty = _footprint(Timeline())
    assert (empty.peak_allocated, empty.peak_live, empty.peak_reserved, empty.phases) == (0, 0, 0, ())
    assert empty.at_peak == dict.fromkeys(CATEGORIES, 0)


def test_what_fits_no_machine_is_refused() -> None:
    timeline = Timeline()
    timeline.phase("load")
    timeline.birth(2**47, "weights", "model", "weight")
    with pytest.raises(InvalidWorkload, match="more than 64 TiB"):
        _footprint(timeline)
