"""How many parameters a model has, from its config's numbers alone; tied weights count once.

For listings, and as a second witness beside the models that transformers and the tape build. Every size must stand in
the config, as real checkpoints have it; where ties and biases do not, transformers' defaults hold.
Source: transformers 5.24.0, models/*/modeling_*.py.
"""

from collections.abc import Callable, Mapping
from typing import Final

from memcalc.catalog.fields import Fields

_GATED: Final[Mapping[str, int]] = {  # rotary models with a gated MLP: norms of a layer, as wide as the model
    "llama": 2, "mistral": 2, "qwen2": 2, "qwen3": 2, "granite": 2, "phi3": 2, "olmo2": 2,
    "gemma": 2, "gemma2": 4, "gemma3_text": 4, "glm4": 4, "cohere": 1,
}  # fmt: skip
_TIED: Final = ("gemma", "gemma2", "gemma3_text", "cohere", "starcoder2")  # where the config does not say
_ONE_HEAD_WIDE: Final = ("qwen3", "gemma3_text")  # norms of queries and keys
_ALL_HEADS_WIDE: Final = ("olmo2", "cohere")


def total_parameters(config: Fields) -> int | None:
    """The parameters of a causal language model, or None where its type is not known here. Raises BadFile."""
    model_type = config.text("model_type")
    counted = _gated if model_type in _GATED else _OTHERS.get(model_type)
    return counted(config) if counted else None


def _gated(c: Fields) -> int:
    kind, hidden = c.text("model_type"), c.integer("hidden_size")
    width = c.integer("intermediate_size")
    own = kind in ("llama", "qwen3", "granite", "glm4") and c.flag("attention_bias", default=False)
    mlp = 3 * hidden * width
    if c.flag("mlp_bias", default=False):
        mlp += 2 * width + hidden
    layer = _attention(c, qkv_bias=own or kind == "qwen2", out_bias=own and kind != "glm4") + mlp
    layer += _GATED[kind] * hidden + _query_key_norms(c)
    return _embeddings(c, kind in _TIED) + c.integer("num_hidden_layers") * layer + hidden


def _starcoder2(c: Fields) -> int:
    hidden, bias = c.integer("hidden_size"), c.flag("use_bias", default=True)
    layer = _attention(c, qkv_bias=bias, out_bias=bias) + _mlp(hidden, c.integer("intermediate_size"), bias)
    return _embeddings(c, tied=True) + c.integer("num_hidden_layers") * (layer + 4 * hidden) + 2 * hidden


def _gpt_neox(c: Fields) -> int:
    hidden = c.integer("hidden_size")
    layer = 4 * hidden * (hidden + 1) + _mlp(hidden, c.integer("intermediate_size")) + 4 * hidden
    return _embeddings(c, tied=False) + c.integer("num_hidden_layers") * layer + 2 * hidden


def _bloom(c: Fields) -> int:
    hidden = c.integer("n_embed", "hidden_size")
    layer = 4 * hidden * (hidden + 1) + _mlp(hidden, 4 * hidden) + 4 * hidden
    return c.integer("vocab_size") * hidden + c.integer("n_layer", "num_hidden_layers") * layer + 4 * hidden


def _gpt2(c: Fields) -> int:
    """GPT-2 and GPT-BigCode, whose keys and values may be one head wide."""
    hidden = c.integer("n_embd", "hidden_size")
    one_head = c.text("model_type") == "gpt_bigcode" and c.flag("multi_query", default=True)
    key_value = hidden // c.integer("n_head", "num_attention_heads", at_least=1) if one_head else hidden
    attention = (hidden + 1) * (2 * hidden + 2 * key_value)
    layer = attention + _mlp(hidden, c.integer("n_inner", default=4 * hidden)) + 4 * hidden
    rows = c.integer("vocab_size") + c.integer("n_positions", "max_position_embeddings", default=1024)
    return rows * hidden + c.integer("n_layer", "num_hidden_layers") * layer + 2 * hidden


def _opt(c: Fields) -> int:
    """Two rows of positions more than there are, and a narrower embedding in one of them."""
    hidden = c.integer("hidden_size")
    narrow = c.integer("word_embed_proj_dim", default=hidden)
    before = c.flag("do_layer_norm_before", default=True)
    layer = 4 * hidden * (hidden + 1) + _mlp(hidden, c.integer("ffn_dim")) + 4 * hidden
    outside = c.integer("vocab_size") * narrow + (c.integer("max_position_embeddings", default=2048) + 2) * hidden
    projections = 2 * hidden * narrow if narrow != hidden else 0
    return outside + projections + c.integer("num_hidden_layers") * layer + (2 * hidden if before else 0)


def _falcon(c: Fields) -> int:
    hidden, heads = c.integer("hidden_size"), c.integer("num_attention_heads", "n_head", at_least=1)
    new, bias = c.flag("new_decoder_architecture", default=False), c.flag("bias", default=False)
    if new:
        kv_heads = c.integer("num_kv_heads", "n_head_kv", default=heads)
        two_norms = c.integer("num_ln_in_parallel_attn", default=2) == 2
    else:
        kv_heads = 1 if c.flag("multi_query", default=True) else heads
        two_norms = not c.flag("parallel_attn", default=True)
    fused = hidden + 2 * kv_heads * (hidden // heads)
    attention = hidden * (fused + hidden) + (fused + hidden if bias else 0)
    layer = attention + _mlp(hidden, c.integer("ffn_hidden_size", default=4 * hidden), bias)
    layer += 4 * hidden if two_norms else 2 * hidden
    return _embeddings(c, tied=True) + c.integer("num_hidden_layers", "n_layer") * layer + 2 * hidden


def _attention(c: Fields, *, qkv_bias: bool, out_bias: bool) -> int:
    heads, kv_heads, head_dim = _heads(c)
    hidden = c.integer("hidden_size")
    biases = head_dim * (heads + 2 * kv_heads) * qkv_bias + hidden * out_bias
    return 2 * hidden * head_dim * (heads + kv_heads) + biases


def _query_key_norms(c: Fields) -> int:
    heads, kv_heads, head_dim = _heads(c)
    kind = c.text("model_type")
    if kind in _ONE_HEAD_WIDE:
        return 2 * head_dim
    if kind in _ALL_HEADS_WIDE and (kind == "olmo2" or c.flag("use_qk_norm", default=False)):
        return (heads + kv_heads) * head_dim
    return 0


def _heads(c: Fields) -> tuple[int, int, int]:
    heads = c.integer("num_attention_heads", at_least=1)
    kv_heads = c.integer("num_key_value_heads", default=heads)
    return heads, kv_heads, c.integer("head_dim", default=c.integer("hidden_size") // heads)


def _mlp(hidden: int, width: int, bias: bool = True) -> int:
    return 2 * hidden * width + (width + hidden if bias else 0)


def _embeddings(c: Fields, tied: bool) -> int:
    copies = 1 if c.flag("tie_word_embeddings", default=tied) else 2
    return copies * c.integer("vocab_size") * c.integer("hidden_size")


_OTHERS: Final[Mapping[str, Callable[[Fields], int]]] = {
    "starcoder2": _starcoder2, "gpt_neox": _gpt_neox, "bloom": _bloom, "gpt2": _gpt2, "gpt_bigcode": _gpt2,
    "opt": _opt, "falcon": _falcon,
}  # fmt: skip
