import json
from typing import Any

import click
import pytest

from memcalc import methods
from memcalc.cli import estimate as command
from memcalc.cli.fields import fields_of
from memcalc.options import options_of
from memcalc.workload import Workload
from tests.cli.running import refusal, run

METHODS = methods.names()


def workload(*arguments: str) -> dict[str, Any]:
    """The resolved workload of `memcalc estimate ARGUMENTS`."""
    result = run("estimate", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    resolved: dict[str, Any] = json.loads(result.out)["workload"]
    return resolved


def test_what_is_not_given_is_what_the_workload_says(tiny: str) -> None:
    assert workload("--model", tiny) == workload("--model", tiny, "--method", "lora", "--gpu", "a100-80gb")


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (("--batch", "3"), "batch", 3),
        (("--batch=3",), "batch", 3),
        (("--batch-size", "3"), "batch", 3),
        (("--batch_size", "3"), "batch", 3),
        (("--batch", "2", "--batch", "3"), "batch", 3),
        (("--seq_len", "77"), "seq_len", 77),
        (("--max-length", "77"), "seq_len", 77),
        (("--padded",), "padded", True),
        (("--no-padded",), "padded", False),
        (("--padded", "--no-padded"), "padded", False),
        (("--grad_ckpt",), "checkpointing", True),
        (("--no-gradient-checkpointing",), "checkpointing", False),
        (("--no_checkpointing",), "checkpointing", False),
        (("--clip", "none"), "clip", "none"),
        (("--clip", "NONE"), "clip", "none"),
        (("--clip", "0.5"), "clip", 0.5),
        (("--history", "160,empty"), "history", "160,empty"),
        (("--history", "160", "--history", "empty"), "history", "160,empty"),
        (("--history", "none"), "history", "none"),
        (("--optimizer", "AdamW-torch"), "optimizer", "adamw_torch"),
        (("--attention", "sdpa_flash"), "attention", "sdpa-flash"),
        (("--method", "LoRA"), "method", "lora"),
        (("--lora-r", "4"), "rank", 4),
        (("--rank=4",), "rank", 4),
        (("--alpha", "12"), "alpha", 12.0),
        (("--target", "q_proj,v_proj"), "target", ["q_proj", "v_proj"]),
        (("--target", "q_proj", "--target", " v_proj , k_proj"), "target", ["q_proj", "v_proj", "k_proj"]),
        (("--target", "all-linear"), "target", ["all-linear"]),
        (("--gpu", "RTX_4090"), "gpu", "rtx4090"),
    ],
)
def test_an_option_reaches_the_workload(arguments: tuple[str, ...], field: str, value: object, tiny: str) -> None:
    assert workload("--model", tiny, *arguments)[field] == value


def test_the_workload_of_the_json_is_the_same_workload_again(tiny: str) -> None:
    resolved = workload("--model", tiny, "--method", "qlora", "--seq-len", "128", "--gpu", "24GiB")
    again = Workload.from_json(resolved).to_json()
    assert again == {key: value for key, value in resolved.items() if key in again}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_every_method_stands_in_its_help(method: str) -> None:
    help_text = run("estimate", "--method", method, "--help").out
    for described in (*options_of(Workload).values(), *options_of(methods.load(method).METHOD).values()):
        flag = described.flag.split("/")[0].removeprefix("--")
        assert f"--{flag} " in help_text or f"--[no-]{flag}" in help_text


@pytest.mark.parametrize("method", METHODS)
def test_no_flag_of_a_method_means_two_things(method: str) -> None:
    ctx = click.Context(command.estimate)
    ctx.meta["memcalc.method"] = method
    flags = [flag for param in command.estimate.get_params(ctx) for flag in (*param.opts, *param.secondary_opts)]
    assert len(flags) == len(set(flags))


def test_help_has_its_sections_in_order_and_fits_80_columns(tiny: str) -> None:
    lines = run("estimate", "--help").out.splitlines()
    titles = [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "Examples",
        "Model",
        "Method (lora)",
        "Batch and precision",
        "Quantization",
        "Memory levers",
        "Loop",
        "GPU and allocator",
        "Output",
    ]
    assert max(len(line) for line in lines if not line.startswith("  memcalc")) <= 80


def test_an_option_of_another_method_says_whose_it_is(tiny: str) -> None:
    line = refusal(run("estimate", "--model", tiny, "--method", "full", "--lora-r", "3"))
    assert line.startswith("--method full has no '--lora-r': it belongs to ")
    assert "lora" in line


def test_an_unknown_option_is_answered_with_the_nearest(tiny: str) -> None:
    assert "did you mean --seq-len" in refusal(run("estimate", "--model", tiny, "--seq-lenn", "3"))


def test_a_value_without_an_option_is_refused_with_the_rule(tiny: str) -> None:
    assert refusal(run("estimate", "--model", tiny, "--padded", "True")).startswith("unexpected argument 'True'")


def test_a_switch_takes_no_value(tiny: str) -> None:
    assert "--padded" in refusal(run("estimate", "--model", tiny, "--padded=True"))


def test_a_missing_model_is_named(tiny: str) -> None:
    assert refusal(run("estimate", "--batch", "3")).startswith("--model is missing")


def test_every_field_of_the_workload_is_an_option() -> None:
    assert {option.name for option in fields_of(Workload, "")} == set(options_of(Workload))
