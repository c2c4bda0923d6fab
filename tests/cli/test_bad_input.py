"""Whatever is wrong with the input: one line on stderr that names it, exit code 2, nothing on stdout, no traceback."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc import methods
from memcalc.options import options_of
from memcalc.workload import Workload
from tests.cli.running import TINY, refusal, run

HOSTILE: tuple[dict[str, object], ...] = (
    {"hidden_size": "64"},
    {"hidden_size": -64},
    {"hidden_size": 0},
    {"hidden_size": 63},
    {"hidden_size": 64.5},
    {"hidden_size": True},
    {"hidden_size": None},
    {"hidden_size": []},
    {"hidden_size": {"x": 1}},
    {"hidden_size": 10**30},
    {"hidden_size": float("nan")},
    {"hidden_size": float("inf")},
    {"num_hidden_layers": 0},
    {"num_hidden_layers": 10**9},
    {"num_attention_heads": 0},
    {"num_key_value_heads": 3},
    {"num_key_value_heads": 0},
    {"vocab_size": -1},
    {"vocab_size": 2**62},
    {"intermediate_size": "\x1b[2J"},
    {"tie_word_embeddings": "yes"},
    {"hidden_act": 7},
    {"attention_dropout": 2},
    {"attention_dropout": "x"},
    {"max_position_embeddings": 0},
)
ENORMOUS = "9" * 5000  # Python refuses to read an integer of that many digits


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "llama-3.1-8bb"), ("unknown model 'llama-3.1-8bb'", "llama-3.1-8b")),
        (("--model", ""), ("unknown model ''",)),
        (("--model", "x" * 100_000), ("unknown model 'xxx",)),
        (("--model", "\x00"), ("unknown model",)),
        (("--model", "\udcff"), ("unknown model",)),
        (("--model", "./nowhere"), ("./nowhere",)),
        (("--method", "lora_"), ("unknown method 'lora_'", "did you mean lora")),
        (("--method", ""), ("unknown method ''",)),
        (("--method", "base"), ("unknown method 'base'",)),
        (("--method", "../lora"), ("unknown method '../lora'",)),
        (("--optimizer", "adamw_torchh"), ("unknown optimizer 'adamw_torchh'", "adamw_torch")),
        (("--gpu", "rtx4091"), ("unknown GPU 'rtx4091'", "rtx4090")),
        (("--gpu", "0GiB"), ("0GiB",)),
        (("--quant", "nf5"), ("unknown quantization 'nf5'", "nf4")),
        (("--batch", "0"), ("--batch", "not 0")),
        (("--batch", "-1"), ("--batch", "not -1")),
        (("--batch", "1.5"), ("--batch", "'1.5'")),
        (("--batch", "many"), ("--batch", "'many'")),
        (("--batch", ""), ("--batch", "''")),
        (("--batch", "2147483648"), ("--batch", "2,147,483,647")),
        (("--batch", ENORMOUS), ("--batch", "'999")),
        (("--seq-len", "0"), ("--seq-len", "not 0")),
        (("--grad-accum", "0"), ("--grad-accum", "not 0")),
        (("--checkpoint-every", "0", "--checkpointing"), ("--checkpoint-every", "not 0")),
        (("--rank", "0"), ("--rank", "0")),
        (("--rank", "-8"), ("--rank", "-8")),
        (("--rank", "65"), ("rank", "65")),
        (("--rank", "eight"), ("--rank", "'eight'")),
        (("--alpha", "nan"), ("--alpha", "nan")),
        (("--alpha", "x"), ("--alpha", "'x'")),
        (("--lora-dropout", "1.5"), ("--lora-dropout", "1.5")),
        (("--lora-dropout", "-0.1"), ("--lora-dropout", "-0.1")),
        (("--target", "qq_proj"), ("qq_proj",)),
        (("--target", ""), ("target",)),
        (("--target", ","), ("target",)),
        (("--dtype", "fp8"), ("--dtype", "'fp8'", "bf16")),
        (("--amp", "fp32"), ("--amp", "'fp32'")),
        (("--attention", "xformers"), ("--attention", "'xformers'", "sdpa")),
        (("--loss", "mse"), ("--loss", "'mse'")),
        (("--loop", "jax"), ("--loop", "'jax'")),
        (("--mode", "eval"), ("--mode", "'eval'")),
        (("--clip", "0"), ("--clip", "0")),
        (("--clip", "-1"), ("--clip", "-1")),
        (("--clip", "inf"), ("--clip", "inf")),
        (("--momentum", "nan", "--optimizer", "sgd"), ("--momentum", "nan")),
        (("--history", "0"), ("--history", "'0'")),
        (("--history", "same,,empty"), ("--history", "''")),
        (("--history", "none,same"), ("--history", "'none'")),
        (("--history", ENORMOUS), ("--history",)),
        (("--alloc-conf", "nonsense"), ("nonsense",)),
        (("--alloc-conf", "max_split_size_mb:1"), ("max_split_size_mb",)),
        (("--double-quant",), ("--double-quant", "--quant")),
        (("--method", "qlora", "--quant", "int8"), ("qlora", "int8")),
        (("--kbit-prepare", "peft"), ("--kbit-prepare", "--quant")),
        (("--merged",), ("--merged", "--mode inference")),
        (("--mode", "inference", "--checkpointing"), ("--checkpointing", "--mode inference")),
        (("--use-cache", "--checkpointing"), ("--use-cache", "--checkpointing")),
        (("--checkpoint-every", "2"), ("--checkpoint-every", "--checkpointing")),
        (("--momentum", "0.9"), ("--momentum", "sgd")),
        (("--attention", "flash", "--dtype", "fp32"), ("--attention flash", "--dtype fp32")),
        (("--attention", "flash", "--gpu", "t4"), ("--attention flash", "--gpu t4")),
        (("--attention", "sdpa-flash", "--padded"), ("--attention sdpa-flash", "--padded")),
    ],
)
def test_bad_values_are_refused_by_name(arguments: tuple[str, ...], words: tuple[str, ...], tiny: str) -> None:
    result = run("estimate", "--model", tiny, *arguments)
    line = refusal(result)
    assert result.code == 2
    for word in words:
        assert word in line
    assert len(line) < 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"llama"',
        "{}",
        "\xff",
        "[" * 100_000,
        '{"model_type": 5}',
        '{"model_type": "llama"}',
        '{"model_type": "llama", "model_type": "qwen2"}',
        *(json.dumps(TINY | changed) for changed in HOSTILE),
        json.dumps(TINY).replace("64", ENORMOUS),
        json.dumps(TINY).replace("64", "1e999"),
    ],
    ids=lambda text: ascii(text[:90]),
)
def test_a_hostile_config_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(text.encode("latin-1"))
    result = run("estimate", "--model", str(tmp_path))
    line = refusal(result)
    assert result.code == 2
    assert str(tmp_path) in line
    assert len(line) < 400


@pytest.mark.parametrize("model_type", ["no-such-model", "../../llama", "__init__", "config", ""])
def test_a_model_type_without_a_family_is_not_modelled(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"model_type": model_type}))
    result = run("estimate", "--model", str(tmp_path))
    assert result.code == 3
    assert repr(model_type) in refusal(result)


def test_what_is_no_file_of_text_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert "not a regular file" in refusal(run("estimate", "--model", str(tmp_path)))
    assert "not a regular file" in refusal(run("estimate", "--model", "/dev/zero"))


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(run("estimate", "--model", str(tmp_path)))


def test_an_adapters_config_is_told_from_a_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert "--peft-config" in refusal(run("estimate", "--model", str(tmp_path)))


CLASSES: list[type] = [Workload, *(methods.load(name).METHOD for name in methods.names())]
FLAGS = sorted(
    flag
    for cls in CLASSES
    for described in options_of(cls).values()
    for flag in (*described.flag.split("/"), *described.aliases)
)
WORDS = (
    "none",
    "same",
    "empty",
    "auto",
    "bf16",
    "nf4",
    "int8",
    "0",
    "1",
    "2",
    "-1",
    "64",
    "1e400",
    "nan",
    "q_proj",
    ",",
)
VALUES = st.sampled_from(WORDS) | st.integers(0, 300).map(str) | st.text(max_size=8)
ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from(FLAGS).map(lambda flag: [flag]),
        st.tuples(st.sampled_from([*FLAGS, "--method", "--gpu", "--top"]), VALUES).map(list),
        st.tuples(st.sampled_from(FLAGS), VALUES).map(lambda pair: ["=".join(pair)]),
        st.sampled_from(methods.names()).map(lambda name: ["--method", name]),
        st.sampled_from(["--json", "--check", "--", "-", "--no-such-option"]).map(lambda flag: [flag]),
        st.text(max_size=8).map(lambda text: [text]),
    ),
    max_size=6,
)


@given(ARGUMENTS)
def test_no_list_of_options_ends_in_a_traceback(tiny: str, arguments: list[list[str]]) -> None:
    given_arguments = [argument for part in arguments for argument in part]
    result = run("estimate", "--model", tiny, *given_arguments)
    assert result.code in (0, 1, 2, 3)
    if result.code > 1:
        refusal(result)
    elif "--json" in given_arguments:
        assert json.loads(result.out)["schema"] == "memcalc.footprint/1"
