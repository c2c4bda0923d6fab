"""Llama. Source: transformers 5.24.0, models/llama/modeling_llama.py."""

from memcalc.families.config import Config, read_llama_like
from memcalc.tape import blocks
from memcalc.tape.builder import Builder
from memcalc.tape.ops.elementwise import add
from memcalc.tape.ops.views import heads
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask, positions
from memcalc.tape.tape import Array, Tensor

MODULES = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
LAYER_MODULES = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
LAYERS = "model.layers"
HEAD = "lm_head"
LEARNED_POSITIONS = False
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")

read = read_llama_like


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """LlamaForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("model", model, batch, c)
    return m.causal_lm(hidden, HEAD, c.vocab, "model.embed_tokens.weight" if c.tied else "", batch, cache)


def model(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """LlamaModel: (b, s) -> (b, s, hidden)."""
    embeds = m.embedding(batch.ids, "embed_tokens", c.vocab, c.hidden)
    cache = m.new_cache(c.sliding_window)
    places = positions(batch.ids)
    mask = causal_mask(
        m.attention.implementation, embeds.dtype, batch, places, cached=cache is not None, window=c.sliding_window
    )
    hidden = embeds
    cos, sin = m.call("rotary_emb", blocks.rotary, hidden.dtype, places, c.head_dim)
    for decoder_layer in m.layers("layers", layer, held=batch.items):
        hidden = decoder_layer(hidden, mask, places, cache, cos, sin, c)
    return m.rms_norm(hidden, "norm"), cache


def layer(
    m: Builder, x: Tensor, mask: Array | None, places: Array, cache: Cache | None, cos: Tensor, sin: Tensor, c: Config
) -> Tensor:
    """LlamaDecoderLayer: (b, s, hidden) -> (b, s, hidden)."""
    residual = x
    hidden = m.rms_norm(x, "input_layernorm")
    hidden, _weights = m.call(
        "self_attn", attention, hidden, mask, places, cache, cos, sin, c
    )  # kept until the layer returns
    hidden = add(residual, hidden)
    residual = hidden
    hidden = m.rms_norm(hidden, "post_attention_layernorm")
    hidden = m.call("mlp", blocks.gated_mlp, hidden, c.intermediate, c.mlp_bias)
    return add(residual, hidden)


def attention(
    m: Builder, x: Tensor, mask: Array | None, places: Array, cache: Cache | None, cos: Tensor, sin: Tensor, c: Config
) -> tuple[Tensor, Tensor | None]:
    """LlamaAttention: (b, s, hidden) -> (b, s, hidden), and eager's weights."""
    q = heads(m.linear(x, "q_proj", c.heads * c.head_dim, c.attention_bias), c.head_dim)
    k = heads(m.linear(x, "k_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    v = heads(m.linear(x, "v_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    q, k = blocks.apply_rotary(q, k, cos, sin)
    if cache is not None:
        k, v = cache.update(k, v)
    out, weights = blocks.attention(m, q, k, v, mask, places)
    out = m.linear(out, "o_proj", c.hidden, c.output_bias)
    return out, weights
