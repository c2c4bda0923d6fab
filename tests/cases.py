"""The case space of the stream comparison: what two tiers are held against each other on, in tiny models.

A case is one label for each dimension, in their order. Labels are unique over all dimensions, so that a case can be
named by those that are not the plain ones: `named("qwen2 lora ckpt fp16")`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from memcalc import methods
from memcalc.catalog.find import Model, find_gpu
from memcalc.errors import InvalidWorkload
from memcalc.workload import Workload
from tests.tiny import _NARROW, TINY

Case: TypeAlias = tuple[str, ...]
Options: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Dimension:
    """One thing that varies: labels and the options that each means. The first label is the plain one."""

    name: str
    values: Mapping[str, Options]
    applies: Callable[[Case], bool] = lambda case: True  # where it does not, only the plain label is possible
    rare: bool = False  # random cases are mostly plain here


_LLAMA: Final = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 211,
                 "max_position_embeddings": 256, "tie_word_embeddings": False}  # fmt: skip
_ROPE: Final = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
_MISTRAL: Final = {**_LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None}
_QWEN: Final = {**_LLAMA, "model_type": "qwen2", "num_key_value_heads": 2, "vocab_size": 151}
_BLOOM: Final = {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 203,
                 "hidden_dropout": 0.0, "attention_dropout": 0.0}  # fmt: skip

_VARIED: Final = {"llama", "mistral", "qwen2", "bloom"}
_IN_ANY_ORDER: Final = {"gemma3_text"}  # rotary embeddings in the order of a set: tests/families compares it by size

CONFIGS: Final[Mapping[str, Options]] = {
    "llama": _LLAMA,
    "llama-gqa-biases": {
        **_LLAMA, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 130,
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rope_parameters": _ROPE,
    },
    "llama-dropout": {**_LLAMA, "num_key_value_heads": 1, "num_hidden_layers": 6, "attention_dropout": 0.1},
    "mistral": _MISTRAL,
    "mistral-window": {**_MISTRAL, "sliding_window": 16, "head_dim": 20, "vocab_size": 97},
    "qwen2": {**_QWEN, "tie_word_embeddings": True},
    "qwen2-wide-heads": {**_QWEN, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 6},
    "bloom": _BLOOM,
    "bloom-6-heads": {
        **_BLOOM, "hidden_size": 72, "n_head": 6, "n_layer": 6, "tie_word_embeddings": False,
        "apply_residual_connection_post_layernorm": True,
    },
    "bloom-dropout": {**_BLOOM, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    **{family: config for family, config in TINY.items() if family not in _VARIED | _IN_ANY_ORDER},
}  # fmt: skip


_OF_LORA: Final = ("lora", "lora-all", "qlora", "qlora-all")
_METHODS: Final = [name for name in methods.names() if name not in ("full", "lora", "qlora")]
FOUND: Final = frozenset(_METHODS)  # labels that a folder's listing gives: what is new there needs no case by name


def _quantized(case: Case) -> bool:
    return label(case, "method").startswith("qlora") or label(case, "base") != "plain-base"


def _adapted(case: Case) -> bool:
    """Whether LoRA's own options mean anything."""
    return label(case, "method") in _OF_LORA


def _packable(case: Case) -> bool:
    """What has adapters to save beside a base that is packed."""
    name = label(case, "method")
    return name in ("lora", "lora-all") or (name in _METHODS and methods.load(name).METHOD().adds)


def _mergeable(case: Case) -> bool:
    """What estimate merges: LoRA, into weights that are not packed."""
    of_lora = label(case, "method") in ("lora", "lora-all", "lora_plus", "rslora", "pissa")
    return of_lora and not _trained(case) and not _quantized(case)


def _checkpointed(case: Case) -> bool:
    return _trained(case) and label(case, "checkpointing") != "no-ckpt"


def _trained(case: Case) -> bool:
    return label(case, "mode") == "train"


DIMENSIONS: Final = (
    Dimension("model", {name: {"model": Model(name, config, "tests/cases.py")} for name, config in CONFIGS.items()}),
    Dimension(
        "method",
        {
            "full": {"method": "full"},
            "lora": {"method": "lora"},
            "lora-all": {"method": "lora", "target": ("all-linear",), "rank": 4},
            "qlora": {"method": "qlora"},
            "qlora-all": {"method": "qlora", "target": ("all-linear",), "rank": 4},
            **{name: {"method": name, **_NARROW.get(name, {})} for name in _METHODS},
        },
    ),
    Dimension(
        "base",
        {
            "plain-base": {},
            "int8-base": {"quant": "int8", "checkpointing": False},
            "nf4-base": {"quant": "nf4", "checkpointing": False},
        },
        _packable,
        rare=True,
    ),
    Dimension(
        "adapter",
        {
            "plain-adapter": {},
            "lora-dropout": {"lora_dropout": 0.1},
            "bias-all": {"bias": "all"},
            "bias-lora-only": {"bias": "lora_only"},
            "root-scaled": {"use_rslora": True, "rank": 16},
            "adapter-as-base": {"autocast_adapter_dtype": False},
        },
        _adapted,
    ),
    Dimension(
        "quantization",
        {
            "double-peft": {"kbit_prepare": "peft"},
            "double-raw": {"kbit_prepare": "none"},
            "double-trl": {"kbit_prepare": "trl"},
            "single-peft": {"double_quant": False, "kbit_prepare": "peft"},
            "single-raw": {"double_quant": False, "kbit_prepare": "none"},
            "single-trl": {"double_quant": False, "kbit_prepare": "trl"},
        },
        _quantized,
    ),
    Dimension("mode", {"train": {"mode": "train"}, "inference": {"mode": "inference"}}, rare=True),
    Dimension("merged", {"beside": {}, "merged": {"merged": True}}, _mergeable),
    Dimension(
        "checkpointing",
        {
            "no-ckpt": {"checkpointing": False},
            "ckpt": {"checkpointing": True},
            "reentrant": {"checkpointing": True, "reentrant": True},
        },
        _trained,
    ),
    Dimension("every", {"every-layer": {}, "one-in-two": {"checkpoint_every": 2}}, _checkpointed, rare=True),
    Dimension(
        "precision",
        {
            "bf16": {"dtype": "bf16"},
            "fp16": {"dtype": "fp16"},
            "fp32": {"dtype": "fp32"},
            "amp-bf16-over-fp32": {"dtype": "fp32", "amp": "bf16"},
            "amp-bf16-over-bf16": {"dtype": "bf16", "amp": "bf16"},
            "amp-fp16-over-fp32": {"dtype": "fp32", "amp": "fp16"},
            "amp-fp16-over-fp16": {"dtype": "fp16", "amp": "fp16"},
        },
    ),
    Dimension(
        "attention",
        {name: {"attention": name} for name in ("auto", "eager", "sdpa", "sdpa-flash", "efficient", "math", "flash")},
    ),
    Dimension("mask", {"unpadded": {"padded": False}, "padded": {"padded": True}}),
    Dimension(
        "optimizer",
        {
            "adamw": {"optimizer": "adamw_torch"},
            "fused": {"optimizer": "adamw_torch_fused"},
            "forloop": {"optimizer": "adamw_torch_forloop"},
            "sgd": {"optimizer": "sgd"},
            "momentum": {"optimizer": "sgd", "momentum": 0.9},
            "adagrad": {"optimizer": "adagrad"},
            "rmsprop": {"optimizer": "rmsprop", "momentum": 0.9},
            "adafactor": {"optimizer": "adafactor"},
            "adamw-8bit": {"optimizer": "adamw_8bit"},
            "paged-ademamix": {"optimizer": "paged_ademamix_8bit"},
            "lion": {"optimizer": "lion_32bit"},
            "radam": {"optimizer": "schedule_free_radam"},
        },
        _trained,
    ),
    Dimension("loss", {"nll": {}, "chunked": {"loss": "chunked-nll"}}, _trained, rare=True),
    Dimension("noise", {"quiet": {}, "noisy": {"neftune_alpha": 5.0}}, _trained, rare=True),
    Dimension("loop", {"trainer": {"loop": "trainer"}, "plain": {"loop": "plain"}}, _trained),
    Dimension(
        "output", {f"keep-{end}": {"keep_logits": end} for end in ("none", "backward", "step", "next")}, _trained
    ),
    Dimension("zero_grad", {"to-none": {"zero_grad": "none"}, "to-zero": {"zero_grad": "zero"}}, _trained),
    Dimension("clip", {"clipped": {"clip": 1.0}, "unclipped": {"clip": None}}, _trained),
    Dimension("accumulation", {f"accum-{steps}": {"grad_accum": steps} for steps in (1, 2, 3)}, _trained),
    Dimension("cache", {"no-cache": {"use_cache": False}, "cache": {"use_cache": True}}),
    Dimension(
        "history",
        {
            "after-same": {"history": "same"},
            "first": {"history": "none"},
            "after-short-empty": {"history": "17,empty"},
            "after-longer": {"history": "45"},
            "after-empty-same": {"history": "empty,same"},
        },
        _trained,
    ),
    Dimension("batch", {f"batch-{size}": {"batch": size} for size in (2, 1, 3)}),
    Dimension("length", {f"len-{length}": {"seq_len": length} for length in (37, 1, 8, 64, 130)}),
    Dimension("gpu", {key: {"gpu": find_gpu(key)} for key in ("a100-80gb", "t4", "h100")}),
    Dimension("device", {"cuda": {"device": "cuda"}, "cpu": {"device": "cpu"}}, rare=True),
    Dimension("loading", {"usual-load": {}, "load-map": {"load": "device-map"}}),
)

_USUALLY: Final = 0.8
_AXES: Final = {dimension.name: axis for axis, dimension in enumerate(DIMENSIONS)}
PLAIN: Final[Case] = tuple(next(iter(dimension.values)) for dimension in DIMENSIONS)


def label(case: Case, dimension: str) -> str:
    """What a case says about one dimension."""
    return case[_AXES[dimension]]


def name(case: Case) -> str:
    """The case's labels that are not the plain ones, model and method always: what `named` reads."""
    always = {"model", "method"}
    return " ".join(
        mine for dimension, mine, plain in zip(DIMENSIONS, case, PLAIN, strict=True)
        if mine != plain or dimension.name in always
    )  # fmt: skip


def named(text: str) -> Case:
    """The case of a name. Raises ValueError for a label that is none."""
    axes = {known: axis for axis, dimension in enumerate(DIMENSIONS) for known in dimension.values}
    labels = list(PLAIN)
    for word in text.split():
        if word not in axes:
            raise ValueError(f"{word} is no label of a case; there are {', '.join(axes)}")
        labels[axes[word]] = word
    return tuple(labels)


def workload(case: Case) -> Workload:
    """The workload that a case means. Raises InvalidWorkload where its labels cannot go together."""
    options: dict[str, Any] = {}
    for dimension, mine, plain in zip(DIMENSIONS, case, PLAIN, strict=True):
        if dimension.applies(case):
            options.update(dimension.values[mine])
        elif mine != plain:
            raise InvalidWorkload(f"{mine} means nothing to {name(case)}")
    return Workload.of(**options)


def settled(case: Case) -> Case:
    """The case with the plain label wherever a dimension means nothing to it."""
    return tuple(
        mine if dimension.applies(case) else plain
        for dimension, mine, plain in zip(DIMENSIONS, case, PLAIN, strict=True)
    )


def drawn(source: random.Random, method: str = "") -> Case:
    """Any case, possible or not; of one method, if it is named."""
    labels = [
        plain if dimension.rare and source.random() < _USUALLY else source.choice(list(dimension.values))
        for dimension, plain in zip(DIMENSIONS, PLAIN, strict=True)
    ]
    if method:
        labels[_AXES["method"]] = method
    return settled(tuple(labels))


def possible(case: Case) -> bool:
    """Whether a case is a workload at all."""
    try:
        workload(case)
    except InvalidWorkload:
        return False
    return True
