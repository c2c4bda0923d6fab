"""A model's config.json, read and checked once, so that a family's forward can trust every number.

Keys that transformers requires of a real checkpoint are required here; optional ones have the defaults of
transformers' own config class, which each family's file states. A null counts as absent. Whatever cannot be is
refused with the key, its value and what is allowed.
Source: transformers 5.24.0, models/*/configuration_*.py; those of bloom, llama, mistral and qwen2 stand here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from memcalc.catalog.fields import Fields
from memcalc.catalog.find import Model
from memcalc.catalog.reading import place
from memcalc.errors import BadFile, NotModelled, shown

__all__ = [
    "Config", "Defaults", "Fields", "Keys",
    "layer_windows", "one_window", "read_bloom", "read_decoder", "read_llama_like", "rope_parameters", "rotary_dim",
    "some_windows", "whole_pairs",
]  # fmt: skip

MOST_LAYERS: Final = 10_000  # ten times the deepest network published
MOST_PARAMETERS: Final = 10**15


@dataclass(frozen=True, slots=True, repr=False)
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
    embedding_dropout: float
    use_cache: bool
    fields: Fields
    output_dropout: float = 0.0  # of attention's output, inside its module
    softcap: bool = False  # of attention's scores
    rope_type: str = "default"
    rotary_dim: int = 0  # of a head, where only a part of it is turned
    windows: tuple[int, ...] = ()  # keys that a query sees, layer by layer (0: all); empty: all everywhere
    masks: tuple[int, ...] = (0,)  # windows of the masks that the model makes, in their order

    def window(self, layer: int) -> int:
        """Keys that a query sees in this layer; 0: all."""
        return self.windows[layer] if self.windows else 0

    @property
    def layers_alike(self) -> bool:
        """Every layer does the same: a few of them stand for all."""
        return len(set(self.windows)) <= 1


class Keys(NamedTuple):
    """What a family's config.json calls its numbers, other spellings after the first; empty where it has none."""

    hidden: tuple[str, ...] = ("hidden_size",)
    layers: tuple[str, ...] = ("num_hidden_layers",)
    heads: tuple[str, ...] = ("num_attention_heads",)
    kv_heads: tuple[str, ...] = ("num_key_value_heads",)
    head_dim: tuple[str, ...] = ("head_dim",)
    intermediate: tuple[str, ...] = ("intermediate_size",)
    max_positions: tuple[str, ...] = ("max_position_embeddings",)
    hidden_act: tuple[str, ...] = ("hidden_act",)
    attention_bias: tuple[str, ...] = ("attention_bias",)
    attention_dropout: tuple[str, ...] = ("attention_dropout",)
    hidden_dropout: tuple[str, ...] = ()
    embedding_dropout: tuple[str, ...] = ()


class Defaults(NamedTuple):
    """What a config class of transformers puts where a key is absent."""

    max_positions: int = 2048
    intermediate: int | None = None  # None: four times the hidden size
    kv_heads: int | None = None  # None, and a null in the file: as many as heads
    head_dim: int | None = None  # None: the hidden size over the heads
    hidden_act: str = "silu"
    tied: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0  # of the residual stream and the embeddings
    divisible: bool = False  # the class refuses heads that do not divide the hidden size


LLAMA_KEYS: Final = Keys()
_UNBIASED: Final = Keys(attention_bias=())
_LLAMA_LIKE: Final = {
    "llama": (LLAMA_KEYS, Defaults(intermediate=11008, max_positions=2048, divisible=True)),
    "mistral": (_UNBIASED, Defaults(intermediate=14336, kv_heads=8, max_positions=131072)),
    "qwen2": (_UNBIASED, Defaults(intermediate=22016, kv_heads=32, max_positions=32768)),
}
_BLOOM: Final = Keys(
    hidden=("n_embed", "hidden_size"), layers=("n_layer", "num_hidden_layers"), heads=("n_head", "num_attention_heads"),
    kv_heads=(), head_dim=(), intermediate=(), max_positions=(), hidden_act=(), attention_bias=(),
    hidden_dropout=("hidden_dropout",),
)  # fmt: skip


def read_decoder(model: Model, defaults: Defaults, keys: Keys = LLAMA_KEYS) -> Config:
    """The numbers of a decoder. Raises BadFile, or NotModelled for layers that differ in shape."""
    fields = Fields(model.config, place(model.name))
    if fields.raw("per_layer_config"):
        raise NotModelled(f"{fields.source}: per_layer_config gives layers of different shapes: use trace")
    hidden = fields.integer(*keys.hidden, at_least=1)
    layers = fields.integer(*keys.layers, at_least=1, at_most=MOST_LAYERS)
    heads = fields.integer(*keys.heads, at_least=1)
    vocab = fields.integer("vocab_size", at_least=1)
    kv_heads = _kv_heads(fields, heads, defaults, keys)
    if defaults.divisible and hidden % heads:
        raise BadFile(fields.source, f"hidden_size ({hidden}) must be a multiple of {keys.heads[0]} ({heads})")
    act = defaults.hidden_act
    biased = _flag(fields, keys.attention_bias, defaults.attention_bias)
    return _sized(
        Config(
            name=model.name,
            source=model.source,
            model_type=fields.text("model_type"),
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_size(fields, keys.head_dim, defaults.head_dim or hidden // heads),
            intermediate=_size(fields, keys.intermediate, defaults.intermediate or 4 * hidden),
            vocab=vocab,
            tied=fields.flag("tie_word_embeddings", default=defaults.tied),
            max_positions=_size(fields, keys.max_positions, defaults.max_positions) if keys.max_positions else None,
            hidden_act=fields.text(*keys.hidden_act, default=act) if keys.hidden_act else act,
            attention_bias=biased,
            output_bias=biased,
            mlp_bias=False,
            attention_dropout=_dropout(fields, keys.attention_dropout, defaults.attention_dropout),
            hidden_dropout=_dropout(fields, keys.hidden_dropout, defaults.hidden_dropout),
            embedding_dropout=_dropout(fields, keys.embedding_dropout, defaults.hidden_dropout),
            use_cache=fields.flag("use_cache", default=True),
            fields=fields,
            rope_type=rope_parameters(fields).text("rope_type", "type", default="default"),
        )
    )


def read_llama_like(model: Model) -> Config:
    """The config of a llama, mistral or qwen2 model."""
    model_type = model.config.get("model_type")
    keys, defaults = _LLAMA_LIKE[str(model_type)]
    c = whole_pairs(read_decoder(model, defaults, keys))
    if model_type == "llama":
        return replace(c, mlp_bias=c.fields.flag("mlp_bias", default=False))
    if model_type == "qwen2":
        return replace(c, attention_bias=True)  # written into Qwen2Attention, not configured
    return one_window(c, default=4096)


def read_bloom(model: Model) -> Config:
    """The config of a BLOOM: ALiBi instead of positions, biases everywhere, the head tied to the embedding."""
    c = read_decoder(model, Defaults(hidden_act="gelu", tied=True, divisible=True), _BLOOM)
    return replace(c, attention_bias=True, output_bias=True, mlp_bias=True)


def whole_pairs(c: Config) -> Config:
    """The config itself, unless its heads cannot be turned in pairs."""
    if c.head_dim % 2:
        raise BadFile(c.fields.source, f"rotary embeddings turn pairs: the head size ({c.head_dim}) must be even")
    return c


def rope_parameters(fields: Fields) -> Fields:
    """What a config says of its rotary embeddings.

    Source: transformers 5.24.0, modeling_rope_utils.py, convert_rope_params_to_dict: rope_scaling wins.
    """
    given = fields.raw("rope_scaling") or fields.raw("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise BadFile(fields.source, f"rope_parameters must be an object, not {shown(given)}")
    return Fields(given, f"{fields.source}: rope_parameters")


def rotary_dim(c: Config, default: float, key: str = "partial_rotary_factor") -> int:
    """How much of a head is turned: named in the rope parameters, or beside them by `key`."""
    beside = c.fields.number(key, default=default, at_least=0.0, at_most=1.0)
    part = rope_parameters(c.fields).number("partial_rotary_factor", default=beside, at_least=0.0, at_most=1.0)
    turned = int(c.head_dim * part)
    return turned + turned % 2


def one_window(c: Config, default: int) -> Config:
    """The config with its sliding_window in every layer; `default` where the key is absent, none where it is null."""
    window = c.fields.integer("sliding_window", default=0 if "sliding_window" in c.fields else default)
    return replace(c, windows=(window,) * c.layers, masks=(window,)) if window else c


def some_windows(c: Config) -> Config:
    """Qwen's rule: with use_sliding_window the layers from max_window_layers on see a window.

    Source: transformers 5.24.0, models/qwen3/configuration_qwen3.py, __post_init__ (qwen2 likewise).
    """
    fields = c.fields
    given = fields.integer("sliding_window", default=0 if "sliding_window" in fields else 4096)
    window = given if fields.flag("use_sliding_window", default=False) else 0
    first = fields.integer("max_window_layers", default=28)
    windows = layer_windows(c, window, lambda layer: layer >= first)
    return replace(c, windows=windows, masks=(0, window) if any(windows) else (0,))


def layer_windows(c: Config, window: int, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """Windows layer by layer as `layer_types` names them; where it is absent, `window` in the layers that `slides`."""
    types = c.fields.raw("layer_types")
    if types is None:
        return tuple(window if slides(layer) else 0 for layer in range(c.layers))
    known = {"full_attention": 0, "sliding_attention": window}
    if not isinstance(types, list) or len(types) != c.layers:
        raise BadFile(c.fields.source, f"layer_types must name each of the {c.layers} layers")
    for name in types:
        if not isinstance(name, str) or name not in known:
            raise NotModelled(
                f"{c.fields.source}: estimate does not write layers of type {shown(name)}: use memcalc trace"
            )
    return tuple(known[name] for name in types)


def _kv_heads(fields: Fields, heads: int, defaults: Defaults, keys: Keys) -> int:
    absent = not any(key in fields for key in keys.kv_heads)
    kv_heads = _size(fields, keys.kv_heads, defaults.kv_heads if absent and defaults.kv_heads else heads)
    if heads % kv_heads:
        raise BadFile(
            fields.source, f"num_attention_heads ({heads}) must be a multiple of {keys.kv_heads[0]} ({kv_heads})"
        )
    return kv_heads


def _size(fields: Fields, keys: tuple[str, ...], default: int) -> int:
    return fields.integer(*keys, default=default, at_least=1) if keys else default


def _flag(fields: Fields, keys: tuple[str, ...], default: bool) -> bool:
    return fields.flag(*keys, default=default) if keys else default


def _dropout(fields: Fields, keys: tuple[str, ...], default: float) -> float:
    return fields.number(*keys, default=default, at_least=0.0, at_most=1.0) if keys else 0.0


def _sized(config: Config) -> Config:
    """The config itself, unless its matrices alone would hold more numbers than any machine."""
    attention = 2 * config.hidden * config.head_dim * (config.heads + config.kv_heads)
    layer = attention + 2 * config.hidden * config.intermediate  # every family here has two such matrices or more
    if config.vocab * config.hidden + config.layers * layer > MOST_PARAMETERS:
        raise BadFile(config.fields.source, f"more than {MOST_PARAMETERS:,} parameters: its sizes cannot all be right")
    return config
