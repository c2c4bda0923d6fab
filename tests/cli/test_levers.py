import json

from tests.cli.running import refusal, run


def test_the_waterfall_says_what_each_saves_and_how_to_ask_for_it(tiny: str) -> None:
    result = run("levers", "--model", tiny, "--seq-len", "512", "--batch", "4", "--gpu", "1GiB")
    assert result.code == 0
    assert "as it is" in result.out
    assert "--checkpointing · time: each layer's forward runs again in backward" in result.out
    assert result.out.count("fits") > 3
    assert result.err == ""


def test_json_is_one_object_with_the_largest_saving_first(tiny: str) -> None:
    told = json.loads(run("levers", "--model", tiny, "--seq-len", "512", "--batch", "4", "--json").out)
    savings = [lever["saved"] for lever in told["levers"]]
    assert savings == sorted(savings, reverse=True)
    first = told["levers"][0]
    assert told["peak_reserved"] - first["peak_reserved"] == first["saved"] > 0
    assert first["options"]


def test_a_verdict_that_it_does_not_fit_comes_with_a_way_out(tiny: str) -> None:
    result = run("estimate", "--model", tiny, "--seq-len", "2048", "--batch", "8", "--gpu", "100MiB")
    assert result.code == 0
    assert "does NOT fit" in result.out
    assert "makes it fit, the cheapest first" in result.out


def test_what_cannot_be_made_to_fit_says_so(tiny: str) -> None:
    result = run("estimate", "--model", tiny, "--gpu", "1MiB", "--check")
    assert result.code == 1
    assert "No combination of levers" in result.out


def test_bad_input_is_one_line(tiny: str) -> None:
    assert "--batch" in refusal(run("levers", "--model", tiny, "--batch", "0"))
