"""`memcalc methods --model` and `memcalc budget`."""

import json
from collections.abc import Callable

import pytest

from memcalc import methods
from tests.cli.running import refusal, run
from tests.cli.test_start import HEAVY, SLOW, imported

SHORT = ("--seq-len", "128")


def test_methods_are_compared_by_family(golden: Callable[[str, str], None]) -> None:
    only = "qlora,lora,full,prompt_tuning,ln_tuning,bitfit"
    result = run("methods", "--model", "smollm2-135m", "--only", only, *SHORT)
    golden("methods_compared.txt", result.out)
    assert (result.code, result.err) == (0, "")


def test_a_budget_buys_the_largest_size(golden: Callable[[str, str], None]) -> None:
    only = "lora,oft,prompt_tuning,ln_tuning,freeze,full"
    result = run("budget", "--model", "smollm2-135m", "--params", "1M", "--only", only, *SHORT)
    golden("budget.txt", result.out)
    assert (result.code, result.err) == (0, "")


def test_a_size_of_millions_is_written_out() -> None:
    result = run("budget", "--model", "smollm2-135m", "--params", "10M", "--only", "unilora", *SHORT)
    assert "--theta-d-length 10000000 " in result.out


@pytest.mark.parametrize(
    ("command", "only", "fits"),
    [
        (("methods",), "full,ln_tuning", ["no", "yes"]),
        (("budget", "--params", "2M"), "ln_tuning,prompt_tuning", ["yes", "no"]),
    ],
)
def test_a_gpu_that_is_named_has_a_column(command: tuple[str, ...], only: str, fits: list[str]) -> None:
    common = ("--model", "smollm2-135m", "--only", only, *SHORT, "--batch", "4")
    lines = run(*command, *common, "--gpu", "1GiB").out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("  ")][-2:] == fits
    assert "fits" not in run(*command, *common).out


def test_the_json_of_a_comparison_has_all_rows_and_reasons() -> None:
    told = json.loads(run("methods", "--model", "smollm2-135m", *SHORT, "--json").out)
    assert told["schema"] == "memcalc.survey/1"
    assert {row["method"] for row in told["rows"]} | told["refused"].keys() == set(methods.names())
    assert told["workload"]["seq_len"] == 128
    assert "rank" not in told["workload"]


def test_words_and_only_choose_the_rows() -> None:
    def chosen(*arguments: str) -> list[str]:
        told = json.loads(run("methods", "--model", "smollm2-135m", *SHORT, *arguments, "--json").out)
        return [row["method"] for row in told["rows"]]

    assert chosen("--only", "lora,full") == ["lora", "full"]
    assert chosen("--method", "LoRA") == ["lora"]
    assert "prompt_tuning" in chosen("soft", "prompt")
    assert chosen("soft", "--only", "full,prompt-tuning") == ["prompt_tuning"]


def test_only_chooses_entries_of_the_listing_too() -> None:
    assert [entry["name"] for entry in json.loads(run("methods", "--only", "lora,full", "--json").out)] == [
        "full",
        "lora",
    ]


def test_a_size_that_is_given_is_told_what_it_costs() -> None:
    told = json.loads(run("budget", "--model", "smollm2-135m", "--method", "lora", "--rank", "16", "--json").out)
    (row,) = told["rows"]
    assert (told["params"], row["option"], row["size"]) == (None, "--rank", 16)
    out = run("estimate", "--model", "smollm2-135m", "--method", "lora", "--rank", "16", "--json").out
    footprint = json.loads(out)
    assert row["trainable_params"] == footprint["trainable_params"]
    assert row["peak_reserved"] == footprint["peak_reserved"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("methods", "--batch", "3"), "--batch is of a workload: give --model as well"),
        (("methods", "--model", "no-such-model"), "no-such-model"),
        (("methods", "--model", "1.3b", "--only", "lorra"), "did you mean lora"),
        (("methods", "--model", "1.3b", "--only", "full", "--rank", "4"), "none of full has --rank"),
        (("methods", "--model", "1.3b", "--seq-lenn", "4"), "did you mean --seq-len"),
        (("methods", "--model", "1.3b", "no-such-word"), "memcalc methods lists all"),
        (("budget", "--params", "1M"), "--model is missing"),
        (("budget", "--model", "1.3b", "--params", "many"), "such as 10M"),
        (("budget", "--model", "1.3b", "--params", "1M", "--rank", "3"), "--rank is what a budget is searched for"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert said in refusal(result)


@pytest.mark.parametrize("command", [("methods", *SHORT), ("budget", "--params", "1M", *SHORT)])
def test_neither_needs_a_heavy_package(command: tuple[str, ...]) -> None:
    arguments = (*command, "--model", "smollm2-135m", "--only", "full,lora", "--json")
    assert not imported(*arguments) & (HEAVY | SLOW | {"rich"})


@pytest.mark.parametrize("command", ["methods", "budget"])
def test_a_method_is_named_by_any_of_its_flags_and_help_shows_none_of_them(command: str) -> None:
    assert "--virtual-tokens N" not in run(command, "--help").out
    told = json.loads(
        run(command, "--model", "smollm2-135m", "--only", "prompt_tuning,lora", *SHORT,
            "--num-virtual-tokens", "5", "--lora-r", "2", "--use-rslora", "--target", "q_proj,k_proj", "--json").out
    )  # fmt: skip
    assert [row["trainable_params"] for row in told["rows"]] == [5 * 576, 30 * 2 * (576 + 576 + 576 + 192)]
