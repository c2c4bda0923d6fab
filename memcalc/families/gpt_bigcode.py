"""GPT-BigCode: GPT-2 with linear layers and one head of keys and values for all queries.

Source: transformers 5.24.0, models/gpt_bigcode/modeling_gpt_bigcode.py.
"""

from dataclasses import replace

from memcalc.catalog.find import Model
from memcalc.families import gpt2
from memcalc.families.config import Config, read_decoder
from memcalc.tape import attending
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, dropout
from memcalc.tape.ops.views import by_head, heads, split, transpose, view
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask, positions
from memcalc.tape.tape import Tensor

MODULES = (*gpt2.MODULES[:-1], "transformer.bias", gpt2.MODULES[-1])
LAYER_MODULES, LAYERS, HEAD = gpt2.LAYER_MODULES, gpt2.LAYERS, gpt2.HEAD
ATTENTIONS, LEARNED_POSITIONS = gpt2.ATTENTIONS, gpt2.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """GPTBigCodeConfig."""
    c = gpt2.without_rarities(read_decoder(model, gpt2.DEFAULTS._replace(hidden_act="gelu_pytorch_tanh"), gpt2.KEYS))
    return replace(c, kv_heads=1 if c.fields.flag("multi_query", default=True) else c.heads)


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """GPTBigCodeForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("transformer", model, batch, c)
    return m.causal_lm(hidden, HEAD, c.vocab, "transformer.wte.weight" if c.tied else "", batch, cache)


def model(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """GPTBigCodeModel: (b, s) -> (b, s, hidden). A causal mask of all positions is a buffer that nothing reads."""
    assert c.max_positions is not None
    m.parameter("bias", (c.max_positions, c.max_positions), "buffer", "bool")
    cache = m.new_cache(batch)
    embeds = m.embedding(batch, "wte", c.vocab, c.hidden)
    places = positions(batch)
    mask = causal_mask(m.attention.implementation, embeds.dtype, batch, places, cache=cache)
    position_embeds = m.positions(places, "wpe", c.max_positions, c.hidden)
    hidden = add(embeds, position_embeds)
    hidden = dropout(hidden, c.embedding_dropout if m.training else 0.0)
    for run_block in m.layers("h", block, held=m.handed(batch)):
        hidden = run_block(hidden, Given(mask, None, cache), c)
    return m.layer_norm(hidden, "ln_f"), cache


def block(m: Builder, x: Tensor, given: Given, c: Config) -> Tensor:
    """GPTBigCodeBlock: (b, s, hidden) -> (b, s, hidden)."""
    residual = x
    hidden = m.layer_norm(x, "ln_1")
    attended, _weights = m.call("attn", attention, hidden, given, c)
    hidden = add(attended, residual)
    residual = hidden
    hidden = m.layer_norm(hidden, "ln_2")
    output = m.call("mlp", gpt2.mlp, hidden, c, "linear")
    return add(residual, output)


def attention(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor | None]:
    """GPTBigCodeAttention: (b, s, hidden) -> (b, s, hidden), and eager's weights."""
    q, k, v = _projected(m, x, c)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    out, weights = attending.attention(m, q, k, v, given.mask, None)
    out = m.linear(out, "c_proj", c.hidden, bias=True)
    out = dropout(out, c.hidden_dropout if m.training else 0.0)
    return out, weights


def _projected(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, heads, s, head_dim), keys and values (b, kv_heads, s, head_dim), parts of one product."""
    b, s, _ = x.shape
    width = c.kv_heads * c.head_dim
    if c.kv_heads > 1:
        fused = by_head(m.linear(x, "c_attn", 3 * width, bias=True), 3 * c.head_dim)
        q, k, v = split(transpose(fused, 1, 2), 3 * (c.head_dim,), 3)
        return q, k, v
    fused = view(m.linear(x, "c_attn", c.hidden + 2 * width, bias=True), (b, 1, s, c.hidden + 2 * width))
    q, k, v = split(fused, (c.hidden, width, width), 3)
    return heads(view(q, (b, s, c.hidden)), c.head_dim), k, v
