"""Every method of the installed peft under trace: does it run, and does it count what peft counts on real tensors?

python -m tests.peft_matrix                        the table on the terminal
python -m tests.peft_matrix --out reports/peft_matrix.md
python -m tests.peft_matrix --only OFT --only BOFT --family llama
"""

import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from memcalc.catalog.find import Model
from memcalc.errors import MemcalcError
from memcalc.importers import peft as importer
from memcalc.units import MIB
from memcalc.workload import Workload

_LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1000, "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "qwen2": {**_LLAMA, "model_type": "qwen2", "num_key_value_heads": 2},
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
    "opt": {
        "model_type": "opt", "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 1000, "max_position_embeddings": 256, "word_embed_proj_dim": 64,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000, "n_positions": 256},
}  # fmt: skip
_ATTENTION = {"bloom": ["query_key_value"], "gpt2": ["c_attn"]}
_PROJECTIONS = ["q_proj", "v_proj"]
_NORMS = {"llama": "input_layernorm", "qwen2": "input_layernorm", "bloom": "input_layernorm"}
_VIRTUAL = {"num_virtual_tokens": 4}
_WITHOUT_TARGETS = frozenset(
    [
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "CARTRIDGE",
        "CPT",
        "ADAPTION_PROMPT",
        "LN_TUNING",
        "TRAINABLE_TOKENS",
        "SHADOW",
        "XLORA",
    ]
)
REFUSED_BY_TRACE = ("ADAMSS", "FROD")  # build with real tensors only, in minutes
CONFIGS: dict[str, dict[str, Any]] = {
    "PROMPT_TUNING": _VIRTUAL,
    "MULTITASK_PROMPT_TUNING": {**_VIRTUAL, "num_tasks": 2},
    "P_TUNING": {**_VIRTUAL, "encoder_hidden_size": 32},
    "PREFIX_TUNING": _VIRTUAL,
    "CARTRIDGE": _VIRTUAL,
    "CPT": {"cpt_token_ids": [1, 2, 3, 4], "cpt_mask": [1, 1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1},
    "ADALORA": {"total_step": 100},
    "IA3": {"feedforward_modules": []},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2]},
    "FOURIERFT": {"n_frequency": 32},
    "WAVEFT": {"n_frequency": 32},
    "C3A": {"block_size": 16},
    "VBLORA": {"num_vectors": 16, "vector_length": 16},
    "RANDLORA": {"r": 4},
    "SHIRA": {"r": 4},
    "VERA": {"r": 8},
    "PVERA": {"r": 8},
    "SUPERTUNING": {},
}


@dataclass(frozen=True)
class Outcome:
    """One method over one family."""

    peft_type: str
    family: str
    verdict: str  # runs, refused (peft itself refuses on real tensors), impossible (one line), miscounted
    why: str = ""
    trainable: int | None = None
    peak: int | None = None


def config_of(peft_type: str, family: str) -> dict[str, Any]:
    """A small config of the type, with targets where it takes some."""
    if peft_type == "XLORA":
        return {"peft_type": peft_type, "hidden_size": 64, "adapters": _trained_adapters(family)}
    targets = {} if peft_type in _WITHOUT_TARGETS else {"target_modules": _ATTENTION.get(family, _PROJECTIONS)}
    return {"peft_type": peft_type, **targets, **CONFIGS.get(peft_type, {})}


@cache
def _trained_adapters(family: str) -> dict[str, str]:
    """Two LoRA adapters of a family in folders of their own, for X-LoRA to mix; it wants numbers as names."""
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    folders = {}
    for name in ("0", "1"):
        model = Model(f"tiny-{family}", FAMILIES[family], "tests/peft_matrix.py")
        workload = importer.workload(model, config_of("LORA", family), batch=1, seq_len=8, dtype="fp32")
        folders[name] = tempfile.mkdtemp(prefix=f"lora-{name}-")
        wrapped: Any = wrap(build(workload, "cpu"), workload, "cpu")
        wrapped.save_pretrained(folders[name])
    return folders


def run(peft_type: str, family: str, **options: Any) -> Outcome:
    """Trace one, and build it with real tensors for the count."""
    from memcalc.tracing.record import trace

    model = Model(f"tiny-{family}", FAMILIES[family], "tests/peft_matrix.py")
    chosen = {"batch": 2, "seq_len": 32, "dtype": "fp32", "optimizer": "adamw_torch", **options}
    workload = importer.workload(model, config_of(peft_type, family), **chosen)
    if peft_type == "XLORA":
        workload = replace(workload, use_cache=False)
    real = _real_count(workload) if peft_type not in REFUSED_BY_TRACE else "not built"
    try:
        footprint = trace(workload)
    except MemcalcError as error:
        refused = isinstance(real, str) and peft_type not in REFUSED_BY_TRACE
        return Outcome(peft_type, family, "refused" if refused else "impossible", str(error))
    if footprint.trainable_params != real:
        return Outcome(peft_type, family, "miscounted", f"peft counts {real}", footprint.trainable_params)
    return Outcome(peft_type, family, "runs", "", footprint.trainable_params, footprint.peak_allocated)


def _real_count(workload: Workload) -> int | str:
    """Trainable parameters of the same model made of real tensors, or why peft does not make it."""
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    try:
        wrapped: Any = wrap(build(workload, "cpu"), workload, "cpu")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return int(wrapped.get_nb_trainable_parameters()[0])


def types() -> list[str]:
    """The installed peft's types."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return [str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING]


def outcomes(only: tuple[str, ...], families: tuple[str, ...]) -> Iterator[Outcome]:
    for peft_type in only or types():
        for family in families or FAMILIES:
            yield run(peft_type, family)


def page(found: list[Outcome]) -> str:
    """The table as Markdown."""
    import peft
    import torch
    import transformers

    counts = Counter(outcome.verdict for outcome in found)
    lines = [
        "# peft's methods under trace",
        "",
        f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        + ". Written by `python -m tests.peft_matrix`.",
        "",
        (
            "runs: the step ran, and counts as peft counts on real tensors; refused: peft itself refuses the model on "
            "real tensors; impossible: trace says why in one line."
        ),
        "",
        "| method | " + " | ".join(FAMILIES) + " |",
        "| --- |" + " --- |" * len(FAMILIES),
    ]
    cells = {(outcome.peft_type, outcome.family): outcome for outcome in found}
    for peft_type in dict.fromkeys(outcome.peft_type for outcome in found):
        row = [cells.get((peft_type, family)) for family in FAMILIES]
        lines.append(f"| {peft_type} | " + " | ".join(_cell(outcome) for outcome in row) + " |")
    lines += ["", "## Why not", ""]
    reasons = dict.fromkeys((o.peft_type, o.verdict, o.why) for o in found if o.why)
    lines += [f"- {peft_type}, {verdict}: {why}" for peft_type, verdict, why in reasons]
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    if outcome.peak is None:
        return outcome.verdict
    return f"{outcome.trainable:,} trainable, {outcome.peak / MIB:.2f} MiB"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file.")
@click.option("--only", multiple=True, help="A peft type; repeat it for more.")
@click.option("--family", multiple=True, type=click.Choice(list(FAMILIES)))
def main(out: Path | None, only: tuple[str, ...], family: tuple[str, ...]) -> None:
    """Trace every method of peft over small models."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = []
    for outcome in outcomes(only, family):
        found.append(outcome)
        click.echo(
            f"{outcome.peft_type:24} {outcome.family:6} {outcome.verdict:10} {outcome.trainable or '':>8} {outcome.why}"
        )
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page(found), encoding="utf-8")
    sys.exit(any(outcome.verdict == "miscounted" for outcome in found))


if __name__ == "__main__":
    main()
