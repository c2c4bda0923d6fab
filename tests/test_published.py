import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from memcalc.catalog.find import find_gpu, find_model
from memcalc.workload import Workload

FOLDER = Path(__file__).parent.parent / "profiles" / "published"
TABLES = ("peft", "vramcalc", "fitcheck", "fms")


def rows(table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{table}.jsonl").read_text(encoding="utf-8").splitlines()]


RECORDS = [row for table in TABLES for row in rows(table)]


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert", FOLDER / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_published_row_is_there() -> None:
    assert [len(rows(table)) for table in TABLES] == [15, 5, 8, 7]
    assert len(rows("peft_methods")) == 45 * 7
    assert len({record["id"] for record in RECORDS}) == len(RECORDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_a_record_has_its_source_workload_and_whole_figures(record: dict[str, Any]) -> None:
    assert record["schema"] == "memcalc.published/1"
    assert record["source"]["licence"] in {"Apache-2.0", "MIT"}
    assert find_model(record["workload"]["model"]).name == record["workload"]["model"]
    assert find_gpu(record["workload"]["gpu"]).key == record["workload"]["gpu"]
    figures = {name: value for name, value in record["measured"].items() if name != "phases"}
    assert all(type(value) is int and value >= 0 for value in figures.values())
    assert {"peak_allocated", "peak_reserved"} & figures.keys()
    assert "torch" in record["versions"]


@pytest.mark.parametrize(
    "record", [record for record in RECORDS if "peft_config" not in record["workload"]], ids=lambda record: record["id"]
)
def test_a_workload_in_our_words_is_read(record: dict[str, Any]) -> None:
    workload = Workload.from_json(record["workload"])
    for name, value in record["workload"].items():
        if name in {"batch", "seq_len", "dtype", "amp", "quant", "checkpointing", "reentrant", "loop", "keep_logits"}:
            assert getattr(workload, name) == value


@pytest.mark.parametrize("record", rows("fitcheck"), ids=lambda record: record["id"])
def test_a_t4_row_adds_up(record: dict[str, Any]) -> None:
    measured = record["measured"]
    assert measured["device_total"] == measured["peak_reserved"] + measured["cuda_context"]
    assert measured["peak_allocated"] == max(phase["allocated_peak"] for phase in measured["phases"])
    assert measured["gradients"] == 4 * measured["trainable_params"]


def test_mib_become_bytes_exactly_or_not_at_all(convert: ModuleType) -> None:
    assert convert.from_mib({"a": "140.875"}, context="a") == {"context": 147_718_144}
    with pytest.raises(ValueError, match="no whole number of bytes"):
        convert.from_mib({"a": "0.1"}, context="a")


def test_a_lora_config_becomes_options_and_any_other_stays_a_config(convert: ModuleType) -> None:
    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 32, "lora_alpha": 64, "target_modules": ["q_proj"]}
    assert convert.peft_method(lora) == {"method": "lora", "rank": 32, "alpha": 64, "target": ["q_proj"]}
    dora = {**lora, "use_dora": True}
    assert convert.peft_method(dora) == {"method": "dora", "peft_config": dora}
    vera = {"peft_type": "VERA", "task_type": None}
    assert convert.peft_method(vera) == {"method": "vera", "peft_config": vera}
    assert convert.peft_method({}) == {"method": "full"}


def test_a_table_is_converted_row_by_row(convert: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "vramcalc_a6000.csv").write_text(
        "mode,model,setting,peak_allocated_gb,peak_allocated_bytes,weights_bytes,states_bytes,outside_torch_bytes\n"
        "train,Llama-3.2-1B,bf16 b=2 s=512 sdpa lora=16 amp ckpt,1.0,1000,600,20,7\n"
    )
    (line,) = convert.converted(tmp_path, "vramcalc.jsonl")
    record = json.loads(line)
    assert record["id"] == "vramcalc-train-bf16-b2-s512-sdpa-lora16-amp-ckpt"
    assert record["measured"] == {
        "peak_allocated": 1000,
        "after_load_allocated": 600,
        "gradients_and_optimizer_states": 20,
        "outside_torch": 7,
    }
    workload = record["workload"]
    assert (workload["batch"], workload["seq_len"], workload["rank"]) == (2, 512, 16)
    assert (workload["dtype"], workload["amp"], workload["checkpointing"]) == ("fp32", "bf16", True)


def test_each_source_is_named_in_the_readme_with_its_licence() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for table in TABLES:
        (licence,) = {row["source"]["licence"] for row in rows(table)}
        line = next(line for line in readme.splitlines() if line.startswith(f"| `{table}.jsonl`"))
        assert licence in line
        assert f"| {len(rows(table))} |" in line
