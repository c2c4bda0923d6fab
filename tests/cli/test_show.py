import json

import pytest

from memcalc.footprint import Footprint
from tests.cli.running import refusal, run


def test_json_is_one_footprint_and_nothing_else(tiny: str) -> None:
    result = run("estimate", "--model", tiny, "--json")
    assert (result.code, result.err) == (0, "")
    footprint = Footprint.from_json(json.loads(result.out))
    assert footprint.producer == "estimate"
    assert footprint.at_peak is not None
    assert sum(footprint.at_peak.values()) == footprint.peak_allocated


def test_the_table_says_what_the_json_says(tiny: str) -> None:
    footprint = json.loads(run("estimate", "--model", tiny, "--json").out)
    table = run("estimate", "--model", tiny).out
    assert f"trainable parameters: {footprint['trainable_params']:,} of {footprint['total_params']:,}" in table
    assert f"At the peak, in {footprint['peak_phase']}" in table


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_check_exits_with_1_only_where_it_does_not_fit(form: tuple[str, ...], tiny: str) -> None:
    assert run("estimate", "--model", tiny, "--gpu", "24GiB", "--check", *form).code == 0
    too_small = run("estimate", "--model", tiny, "--gpu", "2MiB", "--check", *form)
    assert too_small.code == 1
    assert json.loads(too_small.out) if form else "does NOT fit on 2.0 MiB" in too_small.out


def test_without_check_nothing_fails_that_does_not_fit(tiny: str) -> None:
    assert run("estimate", "--model", tiny, "--gpu", "2MiB").code == 0


def test_the_verdict_stands_there_when_a_gpu_was_named(tiny: str) -> None:
    assert "fits on NVIDIA GeForce RTX 4090 (23.99 GiB):" in run("estimate", "--model", tiny, "--gpu", "rtx4090").out
    assert "fits on" not in run("estimate", "--model", tiny).out


def test_check_on_the_cpu_is_refused_since_nothing_is_reserved_there(tiny: str) -> None:
    result = run("estimate", "--model", tiny, "--device", "cpu", "--check", "--json", "--dtype", "fp32")
    assert result.code == 2
    assert "no reserved level" in refusal(result)


def test_top_lists_the_largest_blocks_largest_first(tiny: str) -> None:
    blocks = json.loads(run("estimate", "--model", tiny, "--top", "5", "--json").out)["largest"]
    sizes = [block["nbytes"] for block in blocks]
    assert len(blocks) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert "Largest blocks" in run("estimate", "--model", tiny, "--top", "5").out
    assert "Largest blocks" not in run("estimate", "--model", tiny).out


@pytest.mark.parametrize("top", ["-1", "x", "1.5", ""])
def test_top_must_be_a_whole_number(top: str, tiny: str) -> None:
    assert refusal(run("estimate", "--model", tiny, "--top", top)).startswith("--top must be a whole number")
