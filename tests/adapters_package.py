"""What the `adapters` package adds to small models under its own configs: figures that our own methods are held to.

It wants an older transformers than the rest of the house, so it runs in an environment of its own:

    python -m venv adapters && adapters/bin/pip install torch==2.13.0 adapters==1.3.0
    adapters/bin/python tests/adapters_package.py > tests/data/adapters_package.json

Families that the package has no classes for are described to it by an interface of names (its AdapterModelInterface),
through which it takes bottlenecks and their fusion only.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

_DECODER: dict[str, Any] = {
    "hidden_size": 72, "intermediate_size": 136, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 6, "vocab_size": 101, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "pad_token_id": 0,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "llama": {**_DECODER, "model_type": "llama"},
    "llama, grouped": {**_DECODER, "model_type": "llama", "num_key_value_heads": 2},
    "mistral": {**_DECODER, "model_type": "mistral", "num_key_value_heads": 3},
    "gpt2": {"model_type": "gpt2", "n_embd": 72, "n_layer": 3, "n_head": 6, "vocab_size": 101, "n_positions": 64},
    "qwen2": {**_DECODER, "model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": {**_DECODER, "model_type": "qwen3", "head_dim": 16},
    "gemma2": {**_DECODER, "model_type": "gemma2", "head_dim": 16, "tie_word_embeddings": True},
    "phi3": {**_DECODER, "model_type": "phi3"},
    "opt": {
        "model_type": "opt", "hidden_size": 72, "ffn_dim": 136, "num_hidden_layers": 3, "num_attention_heads": 6,
        "vocab_size": 101, "max_position_embeddings": 64, "word_embed_proj_dim": 72,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 72, "n_layer": 3, "n_head": 6, "vocab_size": 101},
    "gpt_neox": {
        "model_type": "gpt_neox", "hidden_size": 72, "intermediate_size": 136, "num_hidden_layers": 3,
        "num_attention_heads": 6, "vocab_size": 101, "max_position_embeddings": 64,
    },
}  # fmt: skip
_LLAMAS = ("llama", "llama, grouped", "mistral", "gpt2")  # the package's own classes

_FUSED = {"attn_qkv_proj": "qkv_proj"}
_SEPARATE = {"attn_q_proj": "q_proj", "attn_k_proj": "k_proj", "attn_v_proj": "v_proj"}
_LIKE_LLAMA = {
    "model_embeddings": "embed_tokens", "model_layers": "layers", "layer_self_attn": "self_attn",
    "layer_intermediate_proj": "mlp.up_proj", "layer_output_proj": "mlp.down_proj", "attn_o_proj": "o_proj",
}  # fmt: skip
_LIKE_BLOOM = {
    "layer_intermediate_proj": "mlp.dense_h_to_4h", "layer_output_proj": "mlp.dense_4h_to_h", "attn_o_proj": "dense",
    "attn_qkv_proj": "query_key_value",
}  # fmt: skip
_INTERFACES: dict[str, dict[str, str]] = {
    "qwen2": {**_LIKE_LLAMA, **_SEPARATE},
    "qwen3": {**_LIKE_LLAMA, **_SEPARATE},
    "gemma2": {**_LIKE_LLAMA, **_SEPARATE},
    "phi3": {**_LIKE_LLAMA, **_FUSED, "layer_intermediate_proj": "mlp.gate_up_proj"},
    "opt": {
        **_LIKE_LLAMA, **_SEPARATE, "model_embeddings": "decoder.embed_tokens", "model_layers": "decoder.layers",
        "layer_intermediate_proj": "fc1", "layer_output_proj": "fc2", "attn_o_proj": "out_proj",
    },
    "bloom": {
        **_LIKE_BLOOM, "model_embeddings": "word_embeddings", "model_layers": "h", "layer_self_attn": "self_attention",
    },
    "gpt_neox": {
        **_LIKE_BLOOM, "model_embeddings": "embed_in", "model_layers": "layers", "layer_self_attn": "attention",
    },
}  # fmt: skip


class Case(NamedTuple):
    """One of the package's configs, and the method and options of ours that are to train the same."""

    config: str
    changes: dict[str, Any]
    method: str
    options: dict[str, Any]
    models: tuple[str, ...] = tuple(MODELS)
    fused: int = 0  # how many adapters; 0: one, which trains
    regularization: bool = True  # whether the fusion's values are kept near the identity


_FACTORS: list[dict[str, Any]] = [{}, *({"reduction_factor": factor} for factor in (2, 7, 0.5, 100))]
CASES: list[Case] = [
    *(Case("DoubleSeqBnConfig", factor, "houlsby", factor) for factor in _FACTORS),
    *(Case("SeqBnConfig", factor, "pfeiffer", factor) for factor in _FACTORS),
    *(Case("ParBnConfig", factor, "parallel_adapter", factor) for factor in _FACTORS),
    Case("SeqBnConfig", {"leave_out": [0]}, "adapter_drop", {"drop_layers": 1}),
    Case(
        "SeqBnConfig", {"leave_out": [0, 1], "reduction_factor": 3}, "adapter_drop",
        {"drop_layers": 2, "reduction_factor": 3},
    ),
    *(Case("SeqBnConfig", {}, "adapter_fusion", {"adapters": number}, fused=number) for number in (2, 3, 8)),
    Case("SeqBnConfig", {}, "adapter_fusion", {"adapters": 3}, fused=3, regularization=False),
    Case("SeqBnConfig", {"reduction_factor": 7}, "adapter_fusion", {"adapters": 2, "reduction_factor": 7}, fused=2),
    Case("PrefixTuningConfig", {}, "prefix_tuning", {"virtual_tokens": 30, "encoder_hidden_size": 512}, _LLAMAS),
    Case(
        "PrefixTuningConfig", {"prefix_length": 5, "bottleneck_size": 11}, "prefix_tuning",
        {"virtual_tokens": 5, "encoder_hidden_size": 11}, _LLAMAS,
    ),
    Case("PrefixTuningConfig", {"flat": True}, "p_tuning_v2", {"virtual_tokens": 30}, _LLAMAS),
    Case("MAMConfig", {}, "mam", {}, _LLAMAS),
    Case(
        "MAMConfig",
        {"prefix_tuning.prefix_length": 7, "prefix_tuning.bottleneck_size": 9, "adapter.reduction_factor": 4},
        "mam", {"virtual_tokens": 7, "encoder_hidden_size": 9, "reduction_factor": 4}, _LLAMAS,
    ),
    Case("MAMConfig", {"prefix_tuning.flat": True}, "mam", {"prefix_projection": False}, _LLAMAS),
    Case("UniPELTConfig", {}, "unipelt", {}, _LLAMAS),
    Case(
        "UniPELTConfig", {"prefix_tuning.prefix_length": 7, "adapter.reduction_factor": 4, "lora.r": 3},
        "unipelt", {"virtual_tokens": 7, "reduction_factor": 4, "rank": 3}, _LLAMAS,
    ),
    Case("UniPELTConfig", {"prefix_tuning.flat": True}, "unipelt", {"prefix_projection": False}, _LLAMAS),
]  # fmt: skip


def main() -> None:
    packages = ("adapters", "transformers", "torch")
    found = {
        "made": "by tests/adapters_package.py, which says how",
        "versions": {name: version(name) for name in packages},
        "models": MODELS,
    }
    lines = ",\n".join(json.dumps(_measured(case, name)) for case in CASES for name in case.models)
    sys.stdout.write(f'{json.dumps(found, indent=1)[:-2]},\n "cases": [\n{lines}\n]}}\n')


def _measured(case: Case, name: str) -> dict[str, Any]:
    """What the package adds to a model: shapes of what trains and of what is frozen, and how many there are of each."""
    adapters: Any = import_module("adapters")
    transformers: Any = import_module("transformers")
    options = dict(MODELS[name])
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(options.pop("model_type"), **options)
    )
    own = {id(parameter) for parameter in model.parameters()}
    adapters.init(model, interface=_interface(adapters, MODELS[name]["model_type"]))
    names = [f"adapter{index}" for index in range(case.fused or 1)]
    for adapter in names:
        model.add_adapter(adapter, config=_config(adapters, case))
    if case.fused:
        fuse = adapters.composition.Fuse(*names)
        model.add_adapter_fusion(fuse, adapters.DynamicAdapterFusionConfig(regularization=case.regularization))
        model.train_adapter_fusion(fuse)
    else:
        model.train_adapter(names[0])
    added = [parameter for parameter in model.parameters() if id(parameter) not in own]
    assert not any(parameter.requires_grad for parameter in model.parameters() if id(parameter) in own)
    return {
        "model": name,
        "config": case.config,
        "changes": case.changes | ({} if case.regularization else {"regularization": False}),
        "method": case.method,
        "options": case.options,
        "trained": _shapes(parameter for parameter in added if parameter.requires_grad),
        "frozen": _shapes(parameter for parameter in added if not parameter.requires_grad),
    }


def _interface(adapters: Any, model_type: str) -> Any:
    names = _INTERFACES.get(model_type)
    if names is None:
        return None
    return adapters.AdapterModelInterface(adapter_methods=["bottleneck"], layer_cross_attn=None, **names)


def _config(adapters: Any, case: Case) -> Any:
    """Of a config that unites several, changes go to a part, by its name."""
    plain = {name: value for name, value in case.changes.items() if "." not in name}
    config = getattr(adapters, case.config)(**plain)
    for name, value in case.changes.items():
        part, _, option = name.rpartition(".")
        if part:
            united = next(one for one in config.configs if (one.architecture or "adapter") == part)
            vars(united)[option] = value  # it lets nobody set one twice
    return config


def _shapes(parameters: Iterable[Any]) -> dict[str, int]:
    found = Counter(" x ".join(map(str, parameter.shape)) for parameter in parameters)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
