"""OPT: learned positions counted from the mask, norms before or behind, a ReLU, biases everywhere.

Source: transformers 5.24.0, models/opt/modeling_opt.py.
"""

from dataclasses import replace

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled
from memcalc.families.config import Config, Defaults, Keys, read_decoder
from memcalc.tape import attending, blocks
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, dropout, scale
from memcalc.tape.ops.views import heads, reshape, view
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask
from memcalc.tape.tape import Array, Tensor, new

MODULES = (
    *("model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.project_out"),
    *("model.decoder.project_in", "model.decoder.final_layer_norm", "model.decoder.layers", "lm_head"),
)
LAYER_MODULES = (
    *("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"),
    *("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
)
LAYERS = "model.decoder.layers"
HEAD = "lm_head"
LEARNED_POSITIONS = True
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")

KEYS = Keys(
    kv_heads=(), head_dim=(), intermediate=("ffn_dim",), hidden_act=("activation_function",),
    attention_bias=("enable_bias",), hidden_dropout=("dropout",),
)  # fmt: skip
DEFAULTS = Defaults(
    intermediate=3072, hidden_act="relu", attention_bias=True, hidden_dropout=0.1, tied=True, divisible=True
)
OFFSET = 2  # positions of the table that no token has


def read(model: Model) -> Config:
    """OPTConfig."""
    c = read_decoder(model, DEFAULTS, KEYS)
    if c.fields.number("layerdrop", default=0.0):
        raise NotModelled(f"{c.fields.source}: estimate does not write layerdrop: use memcalc trace")
    return replace(c, mlp_bias=c.attention_bias)


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """OPTForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("model.decoder", decoder, batch, c)
    tied_to = "model.decoder.embed_tokens.weight" if c.tied else ""
    return m.causal_lm(hidden, HEAD, c.vocab, tied_to, batch, cache)


def decoder(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """OPTDecoder: (b, s) -> (b, s, hidden)."""
    width = c.fields.integer("word_embed_proj_dim", default=c.hidden, at_least=1)
    embeds = m.embedding(batch, "embed_tokens", c.vocab, width)
    cache = m.new_cache(batch)
    past = 0 if cache is None else cache.past
    b, s = batch.shape
    ones = new((b, past + s), "fp32", "ones") if batch.mask is None else batch.mask
    places = places_of(ones)
    places = places.view((b, s), places.strides)
    mask = causal_mask(m.attention.implementation, embeds.dtype, batch, None, cache=cache)
    assert c.max_positions is not None
    rows = c.max_positions + OFFSET
    position_embeds = m.positions(new(places.shape, "int64", "add"), "embed_positions", rows, c.hidden)
    if width != c.hidden:
        embeds = m.linear(embeds, "project_in", c.hidden)
    hidden = add(embeds, position_embeds)
    for run_layer in m.layers("layers", layer, held=m.handed(batch)):
        hidden = run_layer(hidden, Given(mask, places, cache), c)
    kept = not c.fields.flag("_remove_final_layer_norm", default=False)
    if kept and c.fields.flag("do_layer_norm_before", default=True):
        hidden = norm(m, hidden, "final_layer_norm", c)
    if width != c.hidden:
        hidden = m.linear(hidden, "project_out", width)
    return hidden, cache


def places_of(mask: Array) -> Array:
    """Each token's position: how many the mask counts up to it, less one; a mask of ones made here is fp32."""
    shape, dtype = mask.shape, mask.dtype
    counted = new(shape, dtype, "cumsum")
    kept = new(shape, dtype, "mul")
    places = new(shape, dtype, "sub")
    del kept
    if dtype != "int64":
        places = new(shape, "int64", "to")
    del counted
    return places


def layer(m: Builder, x: Tensor, given: Given, c: Config) -> Tensor:
    """OPTDecoderLayer: (b, s, hidden) -> (b, s, hidden). The MLP sees (b * s, hidden)."""
    rate = c.hidden_dropout if m.training else 0.0
    before = c.fields.flag("do_layer_norm_before", default=True)
    residual = x
    hidden = norm(m, x, "self_attn_layer_norm", c) if before else x
    hidden, _weights = m.call("self_attn", attention, hidden, given, c)
    hidden = dropout(hidden, rate)
    hidden = add(residual, hidden)
    if not before:
        hidden = norm(m, hidden, "self_attn_layer_norm", c)
    b, s, width = hidden.shape
    hidden = reshape(hidden, (b * s, width))
    residual = hidden
    if before:
        hidden = norm(m, hidden, "final_layer_norm", c)
    hidden = m.linear(hidden, "fc1", c.intermediate, c.mlp_bias)
    hidden = blocks.activation(hidden, c.hidden_act)
    hidden = m.linear(hidden, "fc2", c.hidden, c.mlp_bias)
    hidden = dropout(hidden, rate)
    hidden = view(add(residual, hidden), (b, s, width))
    if not before:
        hidden = norm(m, hidden, "final_layer_norm", c)
    return hidden


def norm(m: Builder, x: Tensor, name: str, c: Config) -> Tensor:
    """nn.LayerNorm, without weights where the config says so."""
    return m.layer_norm(x, name, affine=c.fields.flag("layer_norm_elementwise_affine", default=True))


def attention(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor | None]:
    """OPTAttention: (b, s, hidden) -> (b, s, hidden), and eager's weights. The queries are scaled before."""
    q = scale(m.linear(x, "q_proj", c.hidden, c.attention_bias))
    q = heads(q, c.head_dim)
    k = m.linear(x, "k_proj", c.hidden, c.attention_bias)
    v = m.linear(x, "v_proj", c.hidden, c.attention_bias)
    k, v = heads(k, c.head_dim), heads(v, c.head_dim)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    out, weights = attending.attention(m, q, k, v, given.mask, given.places)
    out = m.linear(out, "out_proj", c.hidden, c.output_bias)
    return out, weights
