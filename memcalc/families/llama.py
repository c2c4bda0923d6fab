"""Llama, and the parts in which the families that follow it differ.

Source: transformers 5.24.0, models/llama/modeling_llama.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from memcalc.errors import NotModelled
from memcalc.families.config import Config, read_llama_like
from memcalc.tape import attending, blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, dropout
from memcalc.tape.ops.views import heads
from memcalc.tape.prelude import Batch, Cache, Output, causal_masks, positions
from memcalc.tape.tape import Array, Tensor

MODULES = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
LAYER_MODULES = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
NORMED_ATTENTION = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"))
LAYERS = "model.layers"
HEAD = "lm_head"
LEARNED_POSITIONS = False
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")

read = read_llama_like


FREQUENCIES = {"longrope": rotary.longrope_frequencies, "dynamic": rotary.dynamic_frequencies}  # chosen in each forward


def embed(m: Builder, batch: Batch, c: Config) -> Tensor:
    """nn.Embedding: (b, s) -> (b, s, hidden)."""
    return m.embedding(batch, "embed_tokens", c.vocab, c.hidden)


def turn_by(function: Callable[[Builder, str, Array, int], tuple[Tensor, Tensor]]) -> "Turn":
    """A rotary embedding that all layers share."""

    def turn(m: Builder, dtype: str, places: Array, c: Config) -> dict[int, tuple[Tensor, Tensor]]:
        dim = c.rotary_dim or c.head_dim
        if c.rope_type in FREQUENCIES and not m.declaring:
            if c.rope_type == "dynamic" and c.max_positions is not None and places.shape[-1] > c.max_positions:
                raise NotModelled(f"{c.name}: estimate does not write dynamic rope past its positions: use trace")
            m.call("rotary_emb", FREQUENCIES[c.rope_type], dim)
        pair = m.call("rotary_emb", function, dtype, places, dim)
        return dict.fromkeys(c.masks, pair)

    return turn


def layer(m: Builder, x: Tensor, given: Given, c: Config, p: "Parts") -> Tensor:
    """LlamaDecoderLayer: (b, s, hidden) -> (b, s, hidden). Norms that a family has not have no name."""
    before_attention, after_attention, before_mlp, after_mlp = p.norms
    residual = x
    hidden = p.norm(m, x, before_attention) if before_attention else x
    hidden, _weights = m.method.attention(  # kept until the layer returns
        m, "self_attn", hidden, lambda: m.call("self_attn", p.attention, hidden, given, c, p), given.turned
    )
    if after_attention:
        hidden = p.norm(m, hidden, after_attention)
    hidden = p.join(m, residual, hidden, c)
    residual = hidden
    if before_mlp:
        hidden = p.norm(m, hidden, before_mlp)
    hidden = m.call("mlp", p.mlp, hidden, c)
    if after_mlp:
        hidden = p.norm(m, hidden, after_mlp)
    return p.join(m, residual, hidden, c)


def attention(m: Builder, x: Tensor, given: Given, c: Config, p: "Parts") -> tuple[Tensor, Tensor | None]:
    """LlamaAttention: (b, s, hidden) -> (b, s, hidden), and eager's weights."""
    q, k, v, *_held = p.project(m, x, c)
    q, k = p.rotate(q, k, given.cos, given.sin)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    eager = attending.capped_eager_attention if c.softcap else None
    out, weights = attending.attention(m, q, k, v, given.mask, given.places, eager)
    out = m.linear(out, "o_proj", c.hidden, c.output_bias)
    out = dropout(out, c.output_dropout if m.training else 0.0)
    return out, weights


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values: (b, s, hidden) -> (b, heads, s, head_dim); then what attention keeps a name for."""
    q = heads(m.linear(x, "q_proj", c.heads * c.head_dim, c.attention_bias), c.head_dim)
    k = heads(m.linear(x, "k_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    v = heads(m.linear(x, "v_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    return q, k, v


def mlp(m: Builder, x: Tensor, c: Config) -> Tensor:
    """LlamaMLP: (b, s, hidden) -> (b, s, hidden)."""
    return blocks.gated_mlp(m, x, c.intermediate, c.mlp_bias, c.hidden_act)


def join(m: Builder, residual: Tensor, x: Tensor, c: Config) -> Tensor:
    """The residual connection."""
    return add(residual, x)


def rescale(c: Config) -> attending.Steps:
    """Steps that the logits go through: none."""
    return ()


Layer = Callable[[Builder, Tensor, Given, Config, "Parts"], Tensor]
Attention = Callable[[Builder, Tensor, Given, Config, "Parts"], tuple[Tensor, Tensor | None]]
Turn = Callable[[Builder, str, Array, Config], dict[int, tuple[Tensor, Tensor]]]


class Parts(NamedTuple):
    """What a family that follows Llama may write in its own way."""

    embed: Callable[[Builder, Batch, Config], Tensor] = embed
    turn: Turn = turn_by(rotary.rotary)  # cosine and sine, by the layers' window
    layer: Layer = layer
    norm: Callable[[Builder, Tensor, str], Tensor] = Builder.rms_norm
    last_norm: str = "norm"
    norms: tuple[str, str, str, str] = ("input_layernorm", "", "post_attention_layernorm", "")
    attention: Attention = attention
    project: Callable[[Builder, Tensor, Config], tuple[Tensor, ...]] = project
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = rotary.apply_rotary
    mlp: Callable[[Builder, Tensor, Config], Tensor] = mlp
    join: Callable[[Builder, Tensor, Tensor, Config], Tensor] = join
    rescale: Callable[[Config], attending.Steps] = rescale
    hands_back: bool = True  # a cache that it was given, where it makes none


LLAMA = Parts()


def forward(m: Builder, batch: Batch, c: Config, p: Parts = LLAMA) -> Output:
    """LlamaForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("model", model, batch, c, p)
    tied_to = "model.embed_tokens.weight" if c.tied else ""
    return m.causal_lm(hidden, HEAD, c.vocab, tied_to, batch, cache, p.rescale(c))


def model(m: Builder, batch: Batch, c: Config, p: Parts) -> tuple[Tensor, Cache | None]:
    """LlamaModel: (b, s) -> (b, s, hidden)."""
    embeds = p.embed(m, batch, c)
    cache = m.new_cache(batch, c.windows)
    places = positions(batch)
    masks = causal_masks(m.attention.implementation, embeds.dtype, batch, places, cache=cache, windows=c.masks)
    hidden = dropout(embeds, c.embedding_dropout if m.training else 0.0)
    turned = p.turn(m, hidden.dtype, places, c)
    for index, decoder_layer in enumerate(m.layers("layers", p.layer, held=m.handed(batch))):
        window = c.window(index)
        hidden = decoder_layer(hidden, Given(masks[window], places, cache, turned[window]), c, p)
    return p.norm(m, hidden, p.last_norm), cache if p.hands_back or m.use_cache else None
