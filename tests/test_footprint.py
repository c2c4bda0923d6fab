"""The output: JSON and back, what fits, and files that are none."""

import json
import math
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memcalc import estimating
from memcalc.catalog.find import find_gpu
from memcalc.errors import BadFile, InvalidWorkload, UnknownName
from memcalc.footprint import LEVELS, SCHEMA, Block, Footprint, Phase
from memcalc.timeline import CATEGORIES
from tests.strategies import JSON, footprints
from tests.tiny import tiny

ESTIMATED: Final = estimating.estimate(tiny("llama", "qlora"), top=3)


@given(footprints())
def test_json_and_back_is_the_same_footprint(footprint: Footprint) -> None:
    text = json.dumps(footprint.to_json())
    assert Footprint.from_json(json.loads(text)) == footprint


def test_an_estimate_goes_through_json() -> None:
    again = Footprint.from_json(json.loads(json.dumps(ESTIMATED.to_json())))
    assert again == ESTIMATED
    assert again.largest == ESTIMATED.largest
    assert len(again.largest) == 3


def test_the_contracts_keys_are_there_in_the_contracts_order() -> None:
    assert list(ESTIMATED.to_json())[:17] == [
        "schema", "producer", "workload", "total_params", "trainable_params", "checkpoint_bytes", "peak_allocated",
        "peak_live", "peak_reserved", "device_total", "peak_phase", "at_peak", "phases", "unavailable", "versions",
        "warnings", "seconds",
    ]  # fmt: skip
    assert list(ESTIMATED.to_json()["at_peak"]) == list(CATEGORIES)
    assert [phase["name"] for phase in ESTIMATED.to_json()["phases"]] == ["load", "forward", "backward", "optimizer"]


def test_bytes_are_integers_and_a_null_is_explained() -> None:
    data = ESTIMATED.to_json()
    for name in LEVELS:
        assert type(data[name]) is int or name in data["unavailable"]
    on_cpu = estimating.estimate(tiny(device="cpu", dtype="fp32")).to_json()
    assert {name for name in LEVELS if on_cpu[name] is None} == set(on_cpu["unavailable"])


@settings(max_examples=300)
@given(st.sampled_from(sorted({*ESTIMATED.to_json(), "measured", "outcome", "nonsense"})), JSON)
@example("phases", [{"\n": None}])
def test_one_hostile_value_is_a_bad_file_or_means_what_it_says(key: str, value: Any) -> None:
    try:
        footprint = Footprint.from_json({**ESTIMATED.to_json(), key: value}, "figures.json")
    except BadFile as error:
        assert str(error).startswith("figures.json: ")
        assert "\n" not in str(error)
    else:
        _assert_typed(footprint)


@settings(max_examples=200)
@given(st.data())
def test_one_hostile_value_deeper_down_is_a_bad_file_or_means_what_it_says(data: st.DataObject) -> None:
    raw = json.loads(json.dumps(ESTIMATED.to_json()))
    key = data.draw(st.sampled_from(["at_peak", "phases", "largest", "versions", "unavailable"]))
    inner = raw[key][0] if isinstance(raw[key], list) else raw[key]
    inner[data.draw(st.sampled_from([*inner, "nonsense"]))] = data.draw(JSON)
    try:
        _assert_typed(Footprint.from_json(raw, "figures.json"))
    except BadFile as error:
        assert str(error).startswith("figures.json: ")


@given(JSON)
def test_any_other_json_is_a_bad_file(value: Any) -> None:
    with pytest.raises(BadFile, match="figures"):
        Footprint.from_json(value, "figures.json")


def _assert_typed(footprint: Footprint) -> None:
    """What a reader of a file may rely on: arithmetic with these figures cannot fail."""
    for name in LEVELS:
        assert _is_level(getattr(footprint, name)), name
    assert footprint.at_peak is None or all(type(size) is int and size >= 0 for size in footprint.at_peak.values())
    for phase in footprint.phases:
        assert isinstance(phase, Phase)
        assert isinstance(phase.name, str)
        assert all(map(_is_level, phase[1:]))
    for block in footprint.largest:
        assert isinstance(block, Block)
        assert type(block.nbytes) is int
        assert isinstance(block.category, str)
        assert isinstance(block.label, str)
    seconds = footprint.seconds
    assert seconds is None or (type(seconds) in (int, float) and math.isfinite(seconds))
    for texts in (footprint.versions, footprint.unavailable):
        assert all(isinstance(text, str) for text in texts.values())
    assert all(isinstance(warning, str) for warning in footprint.warnings)
    for word in (footprint.producer, footprint.peak_phase, footprint.outcome):
        assert word is None or isinstance(word, str)


def _is_level(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


@pytest.mark.parametrize("schema", [None, "memcalc.footprint/2", 1, ["memcalc.footprint/1"]])
def test_another_schema_is_refused_by_name(schema: object) -> None:
    with pytest.raises(BadFile, match=f"this version of memcalc reads {SCHEMA}"):
        Footprint.from_json({**ESTIMATED.to_json(), "schema": schema})


def test_what_a_file_leaves_out_is_not_known() -> None:
    footprint = Footprint.from_json({"schema": SCHEMA, "producer": "published", "workload": {}, "peak_allocated": 5})
    assert (footprint.peak_allocated, footprint.peak_reserved, footprint.phases) == (5, None, ())


def _reserving(nbytes: int) -> Footprint:
    return Footprint("estimate", {}, peak_reserved=nbytes)


def test_what_fits_is_the_reserved_level_with_the_cards_own_context() -> None:
    card = find_gpu("t4")
    assert card.context_bytes
    assert _reserving(card.memory_bytes - card.context_bytes).fits("t4")
    assert not _reserving(card.memory_bytes - card.context_bytes + 1).fits("t4")
    assert _reserving(2**30).margin("24GiB") == 23 * 2**30


def test_a_card_that_nobody_knows_is_an_error_not_a_verdict() -> None:
    with pytest.raises(UnknownName):
        _reserving(1).fits("rtx 9999")


def test_a_run_on_the_cpu_has_nothing_to_hold_against_a_card() -> None:
    with pytest.raises(InvalidWorkload, match="reserves nothing"):
        estimating.estimate(tiny(device="cpu", dtype="fp32")).fits("t4")
