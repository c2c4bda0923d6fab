"""Falcon: a product of queries, keys and values in three orders, attention and MLP side by side, one mask always.

Source: transformers 5.24.0, models/falcon/modeling_falcon.py.
"""

from dataclasses import replace

from memcalc.catalog.find import Model
from memcalc.errors import InvalidWorkload
from memcalc.families import llama
from memcalc.families.bloom import slopes_of
from memcalc.families.config import Config, Defaults, Keys, read_decoder, whole_pairs
from memcalc.tape import attending, blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, added_in_place, cast, dropout, scaled_in_place
from memcalc.tape.ops.loss import softmax_to
from memcalc.tape.ops.views import by_head, expand, narrow, pick, reshape, select, transpose, view
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask, positions
from memcalc.tape.tape import Array, Tensor, like, new

MODULES = ("transformer.word_embeddings", "transformer.h", "transformer.ln_f", "transformer.rotary_emb", "lm_head")
LAYER_MODULES = (
    *("self_attention.query_key_value", "self_attention.dense", "mlp"),
    *("post_attention_layernorm", "ln_attn", "ln_mlp", "input_layernorm"),
)
LAYERS = "transformer.h"
HEAD = "lm_head"
LEARNED_POSITIONS = False
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")

KEYS = Keys(
    hidden=("n_embed", "hidden_size"), kv_heads=(), head_dim=(), intermediate=("ffn_hidden_size",),
    hidden_act=("activation",), attention_bias=("bias",), hidden_dropout=("hidden_dropout",),
)  # fmt: skip


def read(model: Model) -> Config:
    """FalconConfig. The older decoder has one head of keys and values, or as many as queries."""
    c = whole_pairs(read_decoder(model, Defaults(hidden_act="gelu", tied=True, divisible=True), KEYS))
    if newer(c):
        kv_heads = c.fields.integer("num_kv_heads", default=c.heads, at_least=1)
    else:
        kv_heads = 1 if c.fields.flag("multi_query", default=True) else c.heads
    inside = c.attention_dropout if has_alibi(c) else 0.0  # of the probabilities
    return replace(
        c, kv_heads=kv_heads, mlp_bias=c.attention_bias, attention_dropout=inside, output_dropout=c.attention_dropout
    )


def has_alibi(c: Config) -> bool:
    return c.fields.flag("alibi", default=False)


def newer(c: Config) -> bool:
    return c.fields.flag("new_decoder_architecture", default=False)


def parallel(c: Config) -> bool:
    """Whether attention and MLP see the same input."""
    return c.fields.flag("parallel_attn", default=True)


def norms(c: Config) -> int:
    """How many norms stand before attention and MLP side by side."""
    return c.fields.integer("num_ln_in_parallel_attn", default=2 if newer(c) else 1, at_least=1, at_most=2)


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """FalconForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("transformer", model, batch, c)
    return m.causal_lm(hidden, HEAD, c.vocab, "transformer.word_embeddings.weight" if c.tied else "", batch, cache)


def model(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """FalconModel: (b, s) -> (b, s, hidden)."""
    embeds = m.embedding(batch, "word_embeddings", c.vocab, c.hidden)
    cache = m.new_cache(batch)
    past = 0 if cache is None else cache.past
    alibi, _ones = alibi_of(m, batch, past, c, embeds.dtype) if has_alibi(c) else (None, None)
    places = positions(batch)
    mask = causal_mask(m.attention.implementation, embeds.dtype, batch, places, cache=cache, written_out=True)
    if alibi is not None and mask is not None:
        if mask.dtype == "bool":
            mask = as_numbers(mask, embeds.dtype)
        mask = with_alibi(mask, alibi)
    turned = llama.LLAMA.turn(m, embeds.dtype, places, c)
    hidden = embeds
    for run_block in m.layers("h", block):
        outputs = run_block(hidden, Given(mask, places, cache, turned[0], alibi), c)
        hidden = outputs[0]
    return m.layer_norm(hidden, "ln_f"), cache


def alibi_of(m: Builder, batch: Batch, past: int, c: Config, dtype: str) -> tuple[Array, Array]:
    """The bias of each head by position, as (b, heads, 1, past + s), and the mask that it is counted from."""
    if m.attention.implementation == "flash_attention_2":
        raise InvalidWorkload(f"--attention flash knows no ALiBi: {c.name} offers sdpa, eager")
    b, s = batch.shape
    s += past
    mask = new((b, s), "int64", "ones") if batch.mask is None else batch.mask
    *way, slopes = slopes_of(c.heads)
    counted = new((b, s), mask.dtype, "cumsum")
    before = new((b, s), mask.dtype, "sub")
    del counted
    places = new((b, s), mask.dtype, "mul")
    del before
    low = new((c.heads, 1), "bf16", "to")
    alibi = new((b, c.heads, 1, s), "fp32" if places.dtype == "fp32" else "bf16", "mul")
    del low
    if dtype != alibi.dtype:
        alibi = like(alibi, "to", dtype)
    del way, slopes, places
    return alibi, mask


def as_numbers(mask: Array, dtype: str) -> Array:
    """A boolean mask as zeros and the least number."""
    kept, masked = new((), dtype, "full"), new((), dtype, "scalar_tensor")
    out = new(mask.shape, dtype, "where")
    del kept, masked
    return out


def with_alibi(mask: Array, alibi: Array) -> Array:
    """The causal mask (b, 1, s, s) and the bias in one, for each head."""
    scaled = like(alibi, "div")
    closed = new(mask.shape, "bool", "lt")
    out = new((mask.shape[0], alibi.shape[1], *mask.shape[2:]), mask.dtype, "masked_fill")
    del scaled, closed
    return out


def block(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, ...]:
    """FalconDecoderLayer: (b, s, hidden) -> (b, s, hidden), and eager's probabilities."""
    residual = x
    if newer(c) and norms(c) == 2:
        normed = m.layer_norm(x, "ln_attn")
        mlp_normed = m.layer_norm(x, "ln_mlp")
    else:
        normed = mlp_normed = m.layer_norm(x, "input_layernorm")
    attended, *probabilities = m.call("self_attention", attention, normed, given, c)
    if not newer(c) and not parallel(c):
        residual = dropout_add(m, attended, residual, c.output_dropout)
        mlp_normed = m.layer_norm(residual, "post_attention_layernorm")
    output = m.call("mlp", mlp, mlp_normed, c)
    if newer(c) or parallel(c):
        output = added_in_place(output, attended)
    output = dropout_add(m, output, residual, c.hidden_dropout)
    return output, *probabilities


def dropout_add(m: Builder, x: Tensor, residual: Tensor, rate: float) -> Tensor:
    out = dropout(x, rate if m.training else 0.0)
    out = add(residual, out)
    return out


def attention(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, ...]:
    """FalconAttention: (b, s, hidden) -> (b, s, hidden), and eager's probabilities."""
    b, s, _ = x.shape
    width = (c.heads + 2 * c.kv_heads) * c.head_dim
    fused = m.linear(x, "query_key_value", width, c.attention_bias, "matmul")
    q, k, v = split_heads(fused, c)
    q, k, v = transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)
    if given.alibi is None:
        q, k = rotary.apply_rotary(q, k, given.cos, given.sin)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    probabilities: list[Tensor] = []
    if m.declaring:
        out = transpose(q, 1, 2)
    elif m.attention.implementation == "flash_attention_2":
        q, k, v = transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)
        if q.dtype == "fp32":  # each lets go of what it was
            q = cast(q, m.attention.flash_dtype)
            k = cast(k, m.attention.flash_dtype)
            v = cast(v, m.attention.flash_dtype)
        out = attending.flash_by_position(m, q, k, v, given.mask, given.places)
    elif m.attention.implementation == "sdpa":
        out = attending.scaled_dot_product_attention(m, q, k, v, given.mask, gqa=False)
        out = transpose(out, 1, 2)
    elif given.alibi is not None:
        out, weights, *_held = attention_by_alibi(m, q, k, v, given.mask, given.alibi, x.dtype)
        probabilities = [weights]
    else:
        scores = scaled_in_place(attending.matmul(q, transpose(k, 2, 3)))
        assert given.mask is not None, "eager attention always gets one"
        scores = softmax_to(add(scores, Tensor(given.mask)), x.dtype)
        out = transpose(attending.matmul(scores, v), 1, 2)
        probabilities = [scores]
    out = reshape(out, (b, s, c.hidden))
    out = m.linear(out, "dense", c.hidden, c.attention_bias, "matmul")
    return out, *probabilities


def attention_by_alibi(
    m: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Array | None, alibi: Array, dtype: str
) -> tuple[Tensor, ...]:
    """Eager attention with a bias, its scores in fp32: (b, s, heads, head_dim), the probabilities.

    Then what FalconAttention.forward keeps names for.
    """
    assert mask is not None, "eager attention always gets one"
    product = attending.matmul(q, transpose(k, 2, 3))
    scores = cast(product, "fp32")
    logits = scaled_in_place(add(scores, Tensor(alibi)))
    probabilities = softmax_to(add(logits, Tensor(mask)), dtype)
    probabilities = dropout(probabilities, m.attention.dropout if m.training else 0.0)
    out = attending.matmul(probabilities, v)
    return transpose(out, 1, 2), probabilities, product, scores, logits


def split_heads(fused: Tensor, c: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, s, heads, head_dim), keys and values, by the order in which the product holds them."""
    b, s, _ = fused.shape
    if newer(c):
        group = c.heads // c.kv_heads
        qkv = view(fused, (b, s, c.kv_heads, group + 2, c.head_dim))
        q = narrow(qkv, 3, group)
        k, v = pick(qkv, 3), pick(qkv, 3)
        k, v = expand(k, q.shape), expand(v, q.shape)
        whole = (b, s, c.heads, c.head_dim)
        q, k, v = [reshape(part, whole) for part in (q, k, v)]
        return q, k, v
    if c.kv_heads > 1:
        by_kind = view(fused, (b, s, c.heads, 3, c.head_dim))
        return select(by_kind, 3), select(by_kind, 3), select(by_kind, 3)
    by_heads = by_head(fused, c.head_dim)
    return narrow(by_heads, 2, c.heads), pick(by_heads, 2), pick(by_heads, 2)


def mlp(m: Builder, x: Tensor, c: Config) -> Tensor:
    """FalconMLP: (b, s, hidden) -> (b, s, hidden)."""
    hidden = blocks.activation(m.linear(x, "dense_h_to_4h", c.intermediate, c.mlp_bias, "matmul"), c.hidden_act)
    return m.linear(hidden, "dense_4h_to_h", c.hidden, c.mlp_bias, "matmul")
