"""`memcalc models|gpus|methods|optimizers`, and what the shell completes."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from memcalc import families, methods
from memcalc.catalog.find import find_gpu, find_model
from memcalc.cli import commands
from memcalc.optimizers import OPTIMIZERS
from tests.cli.running import refusal, run
from tests.cli.test_start import HEAVY, SLOW, imported

LISTINGS = ("models", "gpus", "methods", "optimizers")


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json").out)
    return found


def names(*arguments: str) -> list[str]:
    return [entry["name"] for entry in listed(*arguments)]


def completed(*arguments: str, typed: str) -> list[str]:
    """What the shell offers behind `arguments` for what is typed so far."""
    items = ShellComplete(commands, {}, "memcalc", "_MEMCALC_COMPLETE").get_completions(list(arguments), typed)
    return [item.value for item in items]


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("models", "tinyllama"), "listing_models.txt"),
        (("models", "llama-2"), "listing_models_few.txt"),
        (("gpus", "rtx", "24gb"), "listing_gpus.txt"),
        (("gpus", "t4"), "listing_gpus_one.txt"),
        (("methods", "full"), "listing_methods.txt"),
        (("optimizers", "sgd"), "listing_optimizers.txt"),
    ],
)
def test_people_read_a_table(arguments: tuple[str, ...], file: str, golden: Callable[[str, str], None]) -> None:
    golden(file, run(*arguments).out)


@pytest.mark.parametrize("name", LISTINGS)
def test_no_line_is_wider_than_80_columns_in_a_pipe_and_none_ends_in_blanks(name: str) -> None:
    lines = run(name).out.splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_needs_no_heavy_package(name: str) -> None:
    assert not imported(name, "--json") & (HEAVY | SLOW | {"rich"})


@pytest.mark.parametrize("name", LISTINGS)
def test_a_word_that_is_nowhere_is_refused_with_what_lists_all(name: str) -> None:
    result = run(name, "no-such-thing-at-all")
    assert result.code == 2
    assert f"memcalc {name} lists all" in refusal(result)


def test_a_slip_names_the_nearest() -> None:
    assert "did you mean tinyllama-1.1b" in refusal(run("models", "tinylama-1.1b"))


def test_every_name_that_is_listed_is_one_that_model_takes() -> None:
    for entry in listed("models"):
        for name in (entry["name"], *entry["hub_ids"], *entry["aliases"], *entry["stands_for"]):
            assert find_model(name).name == entry["name"]


def test_a_models_entry_says_what_it_is() -> None:
    (entry,) = listed("models", "meta-llama/Llama-3.1-8B-Instruct")
    assert entry == {
        **entry,
        "name": "llama-3.1-8b",
        "family": "llama",
        "estimate": True,
        "parameters": 8_030_261_248,
        "layers": 32,
        "hidden": 4096,
        "vocab": 128_256,
    }
    assert entry["stands_for"]["8b"].startswith("Llama 3.1 8B")
    assert len(entry["sources"]) >= 2


def test_a_size_is_found_with_the_model_that_it_stands_for() -> None:
    assert "llama-2-7b" in names("models", "7b")
    assert "llama-2-13b" not in names("models", "3b")


def test_models_that_estimate_does_not_write_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "names", lambda: ["llama"])
    shown = run("models", "smollm2", "135m").out
    assert "*" not in shown
    shown = run("models", "qwen2-0.5b").out
    assert "qwen2*" in shown
    assert "* estimate does not write this family: memcalc trace runs the real model" in shown


def test_a_card_is_found_by_the_memory_on_its_box_and_by_its_drivers_name() -> None:
    assert {"rtx4090", "rtx3090"} <= set(names("gpus", "rtx", "24gb"))
    assert names("gpus", "Tesla", "T4") == ["t4"]


def test_a_cards_entry_says_where_its_memory_comes_from() -> None:
    (entry,) = listed("gpus", "rtx4090d")
    card = find_gpu("rtx4090d")
    assert (entry["memory_bytes"], entry["memory_source"]) == (card.memory_bytes, card.memory_source)
    assert entry["capability"] == [8, 9]
    assert entry["context_bytes"] is None


def test_every_method_is_listed_with_its_options_and_what_its_name_implies() -> None:
    entries = {entry["name"]: entry for entry in listed("methods")}
    assert set(methods.names()) <= set(entries)
    assert entries["lora"]["paper"] == "arXiv:2106.09685"
    rank = next(option for option in entries["lora"]["options"] if option["flag"] == "--rank")
    assert (rank["default"], "--lora-r" in rank["aliases"]) == (8, True)
    assert entries["qlora"]["implies"] == {"quant": "nf4", "double_quant": True}
    assert entries["qlora"]["paper"] == "arXiv:2305.14314"
    assert all(entry["summary"] and "\n" not in entry["summary"] for entry in entries.values())


def test_neftune_is_listed_when_it_is_an_option_and_not_before() -> None:
    offered = "--neftune-alpha" in run("estimate", "--help").out
    assert ("neftune" in names("methods")) == offered


def test_every_optimizer_is_listed_with_its_states_and_source() -> None:
    entries = {entry["name"]: entry for entry in listed("optimizers")}
    assert entries.keys() == OPTIMIZERS.keys()
    assert entries["adamw_torch"]["states"] == ["exp_avg", "exp_avg_sq"]
    assert entries["adamw_torch"]["temporaries"] == "all at once"
    assert "torch/optim/adam.py" in entries["adamw_torch"]["source"]


@pytest.mark.parametrize(
    ("flag", "typed", "offered"),
    [
        ("--model", "qwen3-0", "qwen3-0.6b"),
        ("--model", "meta-llama/Llama-3.1-8B-I", "meta-llama/Llama-3.1-8B-Instruct"),
        ("--gpu", "rtx40", "rtx4090"),
        ("--method", "ql", "qlora"),
        ("--optimizer", "adamw_torch_f", "adamw_torch_fused"),
        ("--attention", "fl", "flash"),
    ],
)
def test_the_shell_completes_values(flag: str, typed: str, offered: str) -> None:
    assert offered in completed("estimate", flag, typed=typed)


def test_the_shell_completes_a_models_path() -> None:
    items = ShellComplete(commands, {}, "memcalc", "_MEMCALC_COMPLETE").get_completions(["estimate", "--model"], "./my")
    assert [item.type for item in items] == ["file"]


def test_the_shell_completes_commands_and_options() -> None:
    assert {"methods", "models"} <= set(completed(typed="m"))
    assert "--gpu" in completed("estimate", typed="--gp")


def test_the_script_for_the_shell_is_clicks_own() -> None:
    environment = {"_MEMCALC_COMPLETE": "bash_source"}
    script = "import sys; sys.argv = ['memcalc']; from memcalc.cli import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "_MEMCALC_COMPLETE=bash_complete" in process.stdout


def test_a_listing_stands_in_the_help_of_all_commands() -> None:
    assert set(LISTINGS) <= set(commands.list_commands(click.Context(commands)))
