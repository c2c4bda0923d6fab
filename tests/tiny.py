"""A tiny config.json for each model_type that estimate writes."""

from typing import Any, Final

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
    "glm4": {**_DECODER, "model_type": "glm4", "head_dim": 24, "pad_token_id": 0},
}  # fmt: skip
