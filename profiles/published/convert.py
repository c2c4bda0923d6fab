# ruff: noqa: INP001 - a script beside its data, no package
"""Turns tables of others' measurements into JSON lines that our options can be read from.

    python profiles/published/convert.py FOLDER_WITH_CSV

writes peft.jsonl, vramcalc.jsonl, fitcheck.jsonl, fms.jsonl and peft_methods.jsonl beside this file. What the
sources are, how they measured and under which licences they stand: README.md.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

Row = dict[str, str]
Record = dict[str, Any]

SCHEMA = "memcalc.published/1"
METHODS_SCHEMA = "memcalc.peft_methods/1"
MIB = 2**20

# The catalog's name of each model, by the name in a source; -fms: the embedding padded by its script.
MODELS = {
    "HuggingFaceTB/SmolLM2-1.7B": "smollm2-1.7b",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "tinyllama-1.1b",
    "Llama-3.2-1B": "llama-3.2-1b",
    "mistralai/Mistral-7B-v0.1": "mistral-7b-v0.1-fms",
    "TheBloke/Mistral-7B-v0.1-GPTQ": "mistral-7b-v0.1-fms",
    "ibm/PowerLM-3b": "powerlm-3b-fms",
}
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "bf16": "bf16", "fp16": "fp16", "none": "none"}
ATTENTION_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def peft(row: Row) -> Record:
    """A run of the method comparison (MetaMathQA) in the repository of peft."""
    config = json.loads(row["adapter_config"])
    overrides = json.loads(row["training_overrides"])
    workload = {
        "model": "llama-3.2-3b",
        **peft_method(config),
        "gpu": "l40s",
        "batch": 4,
        "seq_len": 684,
        "padded": True,
        "dtype": "bf16",
        "attention": "sdpa",
        "loop": "plain",
        "clip": 1.0,
        "use_cache": True,
        "load": "device-map",
        "optimizer": "adamw_torch",
        "history": "160,empty",
        **overrides,
    }
    return {
        "id": row["name"],
        "source": source("peft", "method comparison (MetaMathQA) of the peft repository, August 2026", "Apache-2.0"),
        "workload": workload,
        "measured": whole(row, peak_reserved="peak_reserved_bytes", checkpoint_bytes="checkpoint_bytes") | counts(row),
        "versions": versions(row, "torch", "transformers", "peft"),
        "notes": [
            "seq_len, the longest batch of 5,000 steps, is not published: 683 to 688 fit lora-rank32",
            "peak_reserved is what torch had reserved after a step, less what it had before the model was loaded",
        ],
    }


def peft_method(config: Record) -> Record:
    """A peft config in our options; what they cannot say yet stays a peft config."""
    if not config:
        return {"method": "full"}
    kind = config["peft_type"].lower()
    options = {"r": "rank", "lora_alpha": "alpha", "target_modules": "target", "lora_dropout": "lora_dropout"}
    own = {key: value for key, value in config.items() if key not in {"peft_type", "task_type"}}
    if kind == "lora" and own.keys() <= options.keys():
        return {"method": "lora", **{options[key]: value for key, value in own.items()}}
    return {"method": "dora" if own.get("use_dora") else kind, "peft_config": config}


def vramcalc(row: Row) -> Record:
    """A row of the benchmark of vramcalc."""
    words = row["setting"].split()
    sizes = dict(word.split("=") for word in words if "=" in word)
    training = row["mode"] == "train"
    workload: Record = {
        "model": MODELS[row["model"]],
        "method": "lora" if "lora" in sizes else "full",
        "gpu": "rtx-a6000",
        "mode": row["mode"],
        "batch": int(sizes["b"]),
        "seq_len": int(sizes["s"]),
        "dtype": "fp32" if "amp" in words else "bf16",
        "attention": "sdpa",
    }
    if "lora" in sizes:
        workload |= {"rank": int(sizes["lora"]), "target": ATTENTION_PROJECTIONS}
    if training:
        workload |= {
            "amp": "bf16" if "amp" in words else "none",
            "checkpointing": "ckpt" in words,
            "reentrant": False,
            "loop": "plain",
            "keep_logits": "backward",
            "zero_grad": "zero",
            "clip": "none",
            "use_cache": False,
            "optimizer": "adamw_torch",
            "history": "same,empty",
        }
    names = {
        "peak_allocated": "peak_allocated_bytes",
        "after_load_allocated": "weights_bytes",
        "gradients_and_optimizer_states": "states_bytes",
        "outside_torch": "outside_torch_bytes",
    }
    return {
        "id": "-".join(["vramcalc", row["mode"], *(word.replace("=", "") for word in words)]),
        "source": source("vramcalc", "benchmark results of vramcalc 0.1.2, October 2026", "MIT"),
        "workload": workload,
        "measured": whole(row, **names),
        "versions": {"torch": "2.14.1+cu130", "transformers": "4.57.6", "peft": "0.21.2"},
        "notes": ["sdpa was limited to its efficient and flash kernels"],
    }


def fitcheck(row: Row) -> Record:
    """A measurement on a T4 from the source distribution of fitcheck-llm."""
    quantized = row["quant"] == "nf4"
    workload = {
        "model": MODELS[row["model"]],
        "method": "qlora" if quantized else "lora",
        **({"double_quant": False} if quantized else {}),
        "rank": int(row["rank"]),
        "alpha": 64,
        "target": ATTENTION_PROJECTIONS,
        "gpu": "t4",
        "batch": int(row["batch"]),
        "seq_len": int(row["seq_len"]),
        "padded": False,
        "dtype": "fp16",
        "attention": {"eager": "eager", "sdpa": "efficient"}[row["attention"]],
        "checkpointing": True,
        "reentrant": False,
        "use_cache": False,
        "loop": "plain",
        "keep_logits": "step",
        "clip": "none",
        "optimizer": "adamw_torch",
        "history": "same",
    }
    mib = {
        "peak_allocated": "peak_allocated_mib",
        "peak_reserved": "peak_reserved_mib",
        "device_total": "process_mib",
        "cuda_context": "cuda_context_mib",
        "after_load_allocated": "after_load_allocated_mib",
        "gradients": "gradient_mib",
        "optimizer_states": "optimizer_state_mib",
    }
    return {
        "id": row["id"],
        "source": source("fitcheck", "measurements of fitcheck-llm 0.3.1, September 2026", "MIT"),
        "workload": workload,
        "measured": from_mib(row, **mib) | counts(row) | {"phases": phases(row)},
        "versions": versions(row, "torch", "transformers", "peft", "bitsandbytes"),
        "notes": ["phases come from a second measured step", "peak_reserved includes the process's first step"],
    }


def phases(row: Row) -> list[Record]:
    names = ("forward", "backward", "optimizer")
    return [{"name": name, **from_mib(row, allocated_peak=f"peak_{name}_mib")} for name in names]


def fms(row: Row) -> Record:
    """A benchmark run of fms-acceleration, on one A100."""
    kbit: dict[tuple[str, str], Record] = {
        ("accelerated-peft-bnb", "bf16"): {"quant": "nf4", "double_quant": True, "kbit_prepare": "none"},
        ("baseline-peft-bnb", "bf16"): {"quant": "nf4", "double_quant": True, "kbit_prepare": "trl"},
        ("baseline-peft-bnb", "none"): {"quant": "nf4", "double_quant": True, "kbit_prepare": "peft"},
        ("accelerated-peft-autogptq", "fp16"): {"quant": "gptq", "kbit_prepare": "none"},
    }
    workload: Record = {"model": MODELS[row["model"]], "method": row["method"], "gpu": "a100-80gb"}
    if row["method"] == "lora":
        targets, dropout = row["targets"].split(), float(row["lora_dropout"])
        workload |= {"rank": int(float(row["lora_r"])), "alpha": 16, "lora_dropout": dropout, "target": targets}
    if row["variant"] != "none":
        workload |= kbit[row["variant"], row["amp"]]
    workload |= {
        "batch": int(row["batch"]),
        "seq_len": int(row["seq_len"]),
        "dtype": DTYPES[row["dtype"]],
        "amp": DTYPES[row["amp"]],
        "checkpointing": True,
        "reentrant": True,
        "attention": "flash",
        "loop": "trainer",
        "optimizer": "adamw_torch",
        "history": "same",
    }
    measured = whole(row, peak_allocated="peak_allocated_bytes", end_allocated="end_allocated_bytes")
    measured |= from_mib(row, device_peak_over_idle="nvidia_smi_peak_minus_idle_mib")
    measured |= whole(row, runs="runs", spread="spread_bytes")
    return {
        "id": row["id"],
        "source": source("fms", "benchmark references of fms-acceleration, 2024", "Apache-2.0"),
        "workload": workload,
        "measured": measured,
        "versions": versions(row, "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "flash_attn"),
        "notes": ["the loss of these versions of transformers keeps other copies of the logits than today's"],
    }


def peft_methods(row: Row) -> Record:
    """Which of peft's methods builds and steps on which family, on the CPU and on meta."""
    trainable = int(row["trainable_params"]) if row["trainable_params"] else None
    return {**row, "trainable_params": trainable, "error": row["error"] or None}


def source(name: str, description: str, licence: str) -> Record:
    return {"name": name, "description": description, "licence": licence}


def versions(row: Row, *packages: str) -> Record:
    return {package: row[package] for package in packages if row[package]}


def counts(row: Row) -> Record:
    return whole(row, trainable_params="trainable_params", total_params="total_params")


def whole(row: Row, **columns: str) -> Record:
    return {name: int(row[column]) for name, column in columns.items()}


def from_mib(row: Row, **columns: str) -> Record:
    """MiB columns as bytes. Raises ValueError where a figure is no whole number of bytes."""
    sizes = {name: Fraction(row[column]) * MIB for name, column in columns.items()}
    for name, size in sizes.items():
        if size.denominator != 1:
            raise ValueError(f"{name}: {row[columns[name]]} MiB is no whole number of bytes")
    return {name: int(size) for name, size in sizes.items()}


TABLES: dict[str, tuple[str, str, Callable[[Row], Record]]] = {
    "peft.jsonl": ("peft_metamathqa_llama32_3b.csv", SCHEMA, peft),
    "vramcalc.jsonl": ("vramcalc_a6000.csv", SCHEMA, vramcalc),
    "fitcheck.jsonl": ("fitcheck_t4.csv", SCHEMA, fitcheck),
    "fms.jsonl": ("fms_a100.csv", SCHEMA, fms),
    "peft_methods.jsonl": ("peft-methods.csv", METHODS_SCHEMA, peft_methods),
}


def converted(folder: Path, table: str) -> Iterator[str]:
    """The lines of one of our files, made from its source's table in `folder`."""
    name, schema, convert = TABLES[table]
    with (folder / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield json.dumps({"schema": schema, **convert(row)}, ensure_ascii=False)


def main(folder: str) -> None:
    for table in TABLES:
        lines = list(converted(Path(folder), table))
        Path(__file__).with_name(table).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
