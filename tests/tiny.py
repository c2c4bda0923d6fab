"""A tiny config.json for each model_type that estimate writes, and workloads over them."""

from typing import Any, Final, NoReturn, get_type_hints

from memcalc import families
from memcalc.catalog.find import Model
from memcalc.workload import Workload

_DECODER: Final[dict[str, Any]] = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 211, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip

TINY: Final[dict[str, dict[str, Any]]] = {
    "llama": {**_DECODER, "model_type": "llama"},
    "mistral": {**_DECODER, "model_type": "mistral", "sliding_window": None},
    "qwen2": {**_DECODER, "model_type": "qwen2"},
    "bloom": {
        "model_type": "bloom", "hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 203,
        "hidden_dropout": 0.0, "attention_dropout": 0.0,
    },
    "qwen3": {**_DECODER, "model_type": "qwen3", "head_dim": 24},
    "granite": {**_DECODER, "model_type": "granite"},
    "phi3": {**_DECODER, "model_type": "phi3", "pad_token_id": 0},
    "gemma": {**_DECODER, "model_type": "gemma", "head_dim": 24, "tie_word_embeddings": True},
    "gemma2": {**_DECODER, "model_type": "gemma2", "head_dim": 24, "sliding_window": 8, "tie_word_embeddings": True},
    "gemma3_text": {
        **_DECODER, "model_type": "gemma3_text", "head_dim": 24, "sliding_window": 8, "sliding_window_pattern": 2,
        "tie_word_embeddings": True,
    },
    "olmo2": {**_DECODER, "model_type": "olmo2"},
    "starcoder2": {**_DECODER, "model_type": "starcoder2"},
    "cohere": {**_DECODER, "model_type": "cohere", "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 211, "n_positions": 256},
    "gpt_bigcode": {
        "model_type": "gpt_bigcode", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 211, "n_positions": 256,
    },
    "gpt_neox": {
        "model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3,
        "num_attention_heads": 4, "vocab_size": 211, "max_position_embeddings": 256,
    },
    "opt": {
        "model_type": "opt", "hidden_size": 64, "ffn_dim": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
        "vocab_size": 211, "max_position_embeddings": 256, "word_embed_proj_dim": 64,
    },
    "falcon": {
        "model_type": "falcon", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 211,
    },
    "glm4": {**_DECODER, "model_type": "glm4", "head_dim": 24, "pad_token_id": 0},
}  # fmt: skip

_NARROW: Final[dict[str, dict[str, Any]]] = {
    "road": {"group_size": 8},
    "c3a": {"block_size": 16},
    "waveft": {"n_frequency": 3},
    "shira": {"rank": 2},
    "vblora": {"vector_length": 16, "num_vectors": 20},
    "adapter_drop": {"drop_layers": 1},
    "llama_pro": {"new_blocks": 3},
}

_INSTEAD: Final = {
    ("adaption_prompt", "bloom"): "gpt2", ("adaption_prompt", "qwen2"): "mistral", ("longlora", "bloom"): "gpt2",
}  # fmt: skip

_SMALL: Final[dict[str, int]] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 176, "vocab_size": 211,
    "max_position_embeddings": 256,
}  # fmt: skip


def config(model_type: str) -> dict[str, Any]:
    """The table's config, or transformers' default one made small: a new family is tested without a row."""
    if model_type in TINY:
        return TINY[model_type]
    from transformers import AutoConfig

    default: Any = AutoConfig.for_model(model_type)
    keys = getattr(default, "attribute_map", {})
    own = {name: value for name, value in default.to_dict().items() if isinstance(value, bool | int | float | str)}
    return {**own, **{keys.get(name, name): value for name, value in _SMALL.items()}, "model_type": model_type}


def tiny(model_type: str = "llama", method: str = "lora", /, *, config_changes: Any = None, **options: Any) -> Workload:
    """A workload of 2 x 24 tokens on three layers. A method that needs it is told how small they are."""
    changed = {**config(model_type), **(config_changes or {})}
    model = Model(f"tiny-{model_type}", changed, "tests/tiny.py")
    return Workload.of(model, method, **{"batch": 2, "seq_len": 24, **_NARROW.get(method, {}), **options})


def taken(model_type: str, method: str) -> str:
    """The model type, or another in its place that the method does not refuse."""
    return _INSTEAD.get((method, model_type), model_type)


def written() -> list[str]:
    """The model types that estimate writes: those of a folder's listing that are not refused as a whole."""
    return [name for name in families.names() if not _refused(name)]


def _refused(model_type: str) -> bool:
    """Whether the family's file is there only to say so."""
    return get_type_hints(families.find(model_type).read).get("return") is NoReturn
