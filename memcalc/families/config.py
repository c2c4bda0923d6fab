"""A model's config.json, read and checked once, so that a family's forward can trust every number.

Keys that transformers requires of a real checkpoint are required here; optional ones have the defaults of
transformers' own config class. A null counts as absent. Whatever cannot be is refused with the key, its value
and what is allowed.
Source: transformers 5.24.0, models/{llama,mistral,qwen2,bloom}/configuration_*.py.
"""

from dataclasses import dataclass
from typing import Final

from memcalc.catalog.fields import Fields
from memcalc.catalog.find import Model
from memcalc.catalog.reading import place
from memcalc.errors import BadFile, NotModelled

__all__ = ["Config", "Fields", "read_bloom", "read_llama_like"]

MOST_LAYERS: Final = 10_000  # ten times the deepest network published
MOST_PARAMETERS: Final = 10**15


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers that a decoder's forward is written with, all checked; a family's own stand in `fields`."""

    name: str
    source: str
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool  # the head's weight is the embedding's
    max_positions: int | None  # None: no bound (ALiBi)
    hidden_act: str
    attention_bias: bool  # of the query, key and value projections
    output_bias: bool  # of attention's output projection
    mlp_bias: bool
    attention_dropout: float
    hidden_dropout: float
    use_cache: bool
    fields: Fields
    sliding_window: int = 0  # keys that a query sees in every layer; 0: all
    layers_alike: bool = True  # every layer does the same: a few of them stand for all


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a llama-like config class of transformers puts where a key is absent."""

    intermediate: int
    kv_heads: int | None  # None, and a null in the file: as many as heads
    max_positions: int


_LLAMA_LIKE = {
    "llama": _Defaults(intermediate=11008, kv_heads=None, max_positions=2048),
    "mistral": _Defaults(intermediate=14336, kv_heads=8, max_positions=131072),
    "qwen2": _Defaults(intermediate=22016, kv_heads=32, max_positions=32768),
}


def read_llama_like(model: Model) -> Config:
    """The config of a llama, mistral or qwen2 model. Raises BadFile, or NotModelled for layers that differ."""
    fields = _fields(model)
    model_type = fields.text("model_type")
    defaults = _LLAMA_LIKE[model_type]
    hidden, layers, heads, vocab = _required(fields, "hidden_size", "num_hidden_layers", "num_attention_heads")
    kv_default = heads if "num_key_value_heads" in fields or defaults.kv_heads is None else defaults.kv_heads
    kv_heads = fields.integer("num_key_value_heads", default=kv_default, at_least=1)
    if heads % kv_heads:
        raise BadFile(
            fields.source, f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({kv_heads})"
        )
    if model_type == "llama" and hidden % heads:  # the other two classes take it, and round head_dim down
        raise BadFile(fields.source, f"hidden_size ({hidden}) must be a multiple of num_attention_heads ({heads})")
    head_dim = fields.integer("head_dim", default=hidden // heads, at_least=1)
    if head_dim % 2:
        raise BadFile(fields.source, f"rotary embeddings turn pairs: the head size ({head_dim}) must be even")
    own_bias = model_type == "llama" and fields.flag("attention_bias", default=False)
    return _sized(
        Config(
            name=model.name,
            source=model.source,
            model_type=model_type,
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=fields.integer("intermediate_size", default=defaults.intermediate, at_least=1),
            vocab=vocab,
            tied=fields.flag("tie_word_embeddings", default=False),
            max_positions=fields.integer("max_position_embeddings", default=defaults.max_positions, at_least=1),
            hidden_act=fields.text("hidden_act", default="silu"),
            attention_bias=own_bias or model_type == "qwen2",  # written into Qwen2Attention, not configured
            output_bias=own_bias,
            mlp_bias=model_type == "llama" and fields.flag("mlp_bias", default=False),
            attention_dropout=_dropout(fields, "attention_dropout"),
            hidden_dropout=0.0,
            use_cache=fields.flag("use_cache", default=True),
            fields=fields,
            sliding_window=_window(fields) if model_type == "mistral" else 0,
        )
    )


def read_bloom(model: Model) -> Config:
    """The config of a BLOOM: ALiBi instead of positions, biases everywhere, the head tied to the embedding."""
    fields = _fields(model)
    hidden, layers, heads, vocab = _required(fields, "n_embed", "n_layer", "n_head")
    if hidden % heads:
        raise BadFile(fields.source, f"hidden_size ({hidden}) must be a multiple of n_head ({heads})")
    return _sized(
        Config(
            name=model.name,
            source=model.source,
            model_type=fields.text("model_type"),
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            intermediate=4 * hidden,
            vocab=vocab,
            tied=fields.flag("tie_word_embeddings", default=True),
            max_positions=None,
            hidden_act="gelu",
            attention_bias=True,
            output_bias=True,
            mlp_bias=True,
            attention_dropout=_dropout(fields, "attention_dropout"),
            hidden_dropout=_dropout(fields, "hidden_dropout"),
            use_cache=fields.flag("use_cache", default=True),
            fields=fields,
        )
    )


def _fields(model: Model) -> Fields:
    fields = Fields(model.config, place(model.name))
    if fields.raw("per_layer_config"):
        raise NotModelled(f"{fields.source}: per_layer_config gives layers of different shapes: use trace")
    return fields


def _required(fields: Fields, hidden_key: str, layers_key: str, heads_key: str) -> tuple[int, int, int, int]:
    """hidden, layers, heads, vocab."""
    return (
        fields.integer(hidden_key, "hidden_size", at_least=1),
        fields.integer(layers_key, "num_hidden_layers", at_least=1, at_most=MOST_LAYERS),
        fields.integer(heads_key, "num_attention_heads", at_least=1),
        fields.integer("vocab_size", at_least=1),
    )


def _window(fields: Fields) -> int:
    """MistralConfig's sliding_window: 4096 where the key is absent, none where it is null."""
    return fields.integer("sliding_window", default=0 if "sliding_window" in fields else 4096, at_least=0)


def _dropout(fields: Fields, key: str) -> float:
    return fields.number(key, default=0.0, at_least=0.0, at_most=1.0)


def _sized(config: Config) -> Config:
    """The config itself, unless its matrices alone would hold more numbers than any machine."""
    attention = 2 * config.hidden * config.head_dim * (config.heads + config.kv_heads)
    layer = attention + 2 * config.hidden * config.intermediate  # every family here has two such matrices or more
    if config.vocab * config.hidden + config.layers * layer > MOST_PARAMETERS:
        raise BadFile(config.fields.source, f"more than {MOST_PARAMETERS:,} parameters: its sizes cannot all be right")
    return config
