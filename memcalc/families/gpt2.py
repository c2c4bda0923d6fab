"""GPT-2: learned positions, Conv1D layers, layer norms, three dropouts that act by default.

Source: transformers 5.24.0, models/gpt2/modeling_gpt2.py.
"""

from typing import Literal

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled
from memcalc.families.config import Config, Defaults, Keys, read_decoder
from memcalc.tape import attending, blocks
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, cast, dropout, scale
from memcalc.tape.ops.loss import softmax
from memcalc.tape.ops.views import heads, split, transpose
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask, positions
from memcalc.tape.tape import Array, Tensor, new

MODULES = ("transformer.wte", "transformer.wpe", "transformer.h", "transformer.ln_f", "lm_head")
LAYER_MODULES = ("ln_1", "attn", "ln_2", "mlp")
LAYERS = "transformer.h"
HEAD = "lm_head"
LEARNED_POSITIONS = True
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")

KEYS = Keys(
    hidden=("n_embd", "hidden_size"), layers=("n_layer", "num_hidden_layers"), heads=("n_head", "num_attention_heads"),
    kv_heads=(), head_dim=(), intermediate=("n_inner",), max_positions=("n_positions", "max_position_embeddings"),
    hidden_act=("activation_function",), attention_bias=(), attention_dropout=("attn_pdrop",),
    hidden_dropout=("resid_pdrop",), embedding_dropout=("embd_pdrop",),
)  # fmt: skip
DEFAULTS = Defaults(
    max_positions=1024, hidden_act="gelu_new", tied=True, attention_dropout=0.1, hidden_dropout=0.1, divisible=True
)


def read(model: Model) -> Config:
    """GPT2Config."""
    return without_rarities(read_decoder(model, DEFAULTS, KEYS))


def without_rarities(c: Config) -> Config:
    """The config itself. Raises NotModelled for what hardly any checkpoint has."""
    for rare in ("add_cross_attention", "reorder_and_upcast_attn"):
        if c.fields.flag(rare, default=False):
            raise NotModelled(f"{c.fields.source}: estimate does not write {rare}: use memcalc trace")
    return c


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """GPT2LMHeadModel: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("transformer", model, batch, c)
    return m.causal_lm(hidden, HEAD, c.vocab, "transformer.wte.weight" if c.tied else "", batch, cache)


def model(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """GPT2Model: (b, s) -> (b, s, hidden)."""
    if batch.mask is None and batch.embeds is None and c.fields.raw("pad_token_id") is not None:
        look_for_padding(batch.ids)
    cache = m.new_cache(batch)
    embeds = m.embedding(batch, "wte", c.vocab, c.hidden)
    places = positions(batch)
    assert c.max_positions is not None
    position_embeds = m.positions(places, "wpe", c.max_positions, c.hidden)
    hidden = add(embeds, position_embeds)
    mask = causal_mask(m.attention.implementation, embeds.dtype, batch, places, cache=cache)
    hidden = dropout(hidden, c.embedding_dropout if m.training else 0.0)
    for run_block in m.layers("h", block, held=(places, m.handed(batch)), positional=True):
        hidden = run_block(hidden, Given(mask, places, cache), c)
    return m.layer_norm(hidden, "ln_f"), cache if m.use_cache else None


def look_for_padding(ids: Array) -> None:
    """Is a row's first or last token the padding's? (warn_if_padding_and_no_attention_mask)."""
    index = new((2,), "int64", "index")
    ends = new((ids.shape[0], 2), "int64", "index")
    del index
    same = new(ends.shape, "bool", "eq")
    answer = new((), "bool", "any")
    del ends, same, answer


def block(m: Builder, x: Tensor, given: Given, c: Config) -> Tensor:
    """GPT2Block: (b, s, hidden) -> (b, s, hidden)."""
    residual = x
    hidden = m.layer_norm(x, "ln_1")
    attended, _weights = m.method.attention(
        m, "attn", hidden, lambda: m.call("attn", attention, hidden, given, c), None
    )
    hidden = add(attended, residual)
    residual = hidden
    hidden = m.layer_norm(hidden, "ln_2")
    output = m.call("mlp", mlp, hidden, c)
    return add(residual, output)


def attention(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor | None]:
    """GPT2Attention: (b, s, hidden) -> (b, s, hidden), and eager's weights."""
    q, k, v = split(m.linear(x, "c_attn", 3 * c.hidden, bias=True, kind="conv1d"), 3 * (c.hidden,), 2)
    k, v = heads(k, c.head_dim), heads(v, c.head_dim)
    q = heads(q, c.head_dim)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    out, weights = attending.attention(m, q, k, v, given.mask, given.places, eager_attention)
    out = m.linear(out, "c_proj", c.hidden, bias=True, kind="conv1d")
    out = dropout(out, c.hidden_dropout if m.training else 0.0)
    return out, weights


def eager_attention(m: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Array | None) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: softmax in the scores' own dtype, the output not laid out anew."""
    weights = scale(attending.matmul(q, transpose(k, 2, 3)))
    if mask is not None:
        weights = add(weights, Tensor(mask))
    weights = softmax(weights)
    weights = cast(weights, v.dtype)
    weights = dropout(weights, m.attention.dropout if m.training else 0.0)
    out = attending.matmul(weights, v)
    out = transpose(out, 1, 2)
    return out, weights


def mlp(m: Builder, x: Tensor, c: Config, kind: Literal["linear", "conv1d"] = "conv1d") -> Tensor:
    """GPT2MLP: (b, s, hidden) -> (b, s, hidden)."""
    hidden = m.linear(x, "c_fc", c.intermediate, bias=True, kind=kind)
    hidden = blocks.activation(hidden, c.hidden_act)
    hidden = m.linear(hidden, "c_proj", c.hidden, bias=True, kind=kind)
    hidden = dropout(hidden, c.hidden_dropout if m.training else 0.0)
    return hidden
