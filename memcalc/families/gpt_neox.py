"""GPT-NeoX: attention and MLP side by side, a fused projection, a part of each head turned, biases everywhere.

Source: transformers 5.24.0, models/gpt_neox/modeling_gpt_neox.py.
"""

from dataclasses import replace

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, Keys, read_decoder, rotary_dim
from memcalc.tape import attending, blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, dropout
from memcalc.tape.ops.views import by_head, split, transpose
from memcalc.tape.prelude import Batch, Output
from memcalc.tape.tape import Tensor

MODULES = ("gpt_neox.embed_in", "gpt_neox.layers", "gpt_neox.final_layer_norm", "gpt_neox.rotary_emb", "lm_head")
LAYER_MODULES = ("input_layernorm", "post_attention_layernorm", "attention", "mlp")
LAYERS = "gpt_neox.layers"
HEAD = "lm_head"
LEARNED_POSITIONS = False
ATTENTIONS = llama.ATTENTIONS

KEYS = Keys(kv_heads=(), head_dim=(), hidden_dropout=("hidden_dropout",), embedding_dropout=("hidden_dropout",))
DEFAULTS = Defaults(intermediate=24576, hidden_act="gelu", attention_bias=True, divisible=True)


def read(model: Model) -> Config:
    """GPTNeoXConfig."""
    c = read_decoder(model, DEFAULTS, KEYS)
    return replace(c, rotary_dim=rotary_dim(c, 0.25, "rotary_pct"))


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """GPTNeoXForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("gpt_neox", llama.model, batch, c, PARTS)
    return m.causal_lm(hidden, HEAD, c.vocab, "gpt_neox.embed_in.weight" if c.tied else "", batch, cache)


def layer(m: Builder, x: Tensor, given: Given, c: Config, p: llama.Parts) -> Tensor:
    """GPTNeoXLayer: (b, s, hidden) -> (b, s, hidden)."""
    rate = c.hidden_dropout if m.training else 0.0
    attended, _weights = m.call("attention", attention, m.layer_norm(x, "input_layernorm"), given, c)
    attended = dropout(attended, rate)
    if c.fields.flag("use_parallel_residual", default=True):
        output = m.call("mlp", mlp, m.layer_norm(x, "post_attention_layernorm"), c)
        output = dropout(output, rate)
        return add(add(output, attended), x)
    attended = add(attended, x)
    output = m.call("mlp", mlp, m.layer_norm(attended, "post_attention_layernorm"), c)
    output = dropout(output, rate)
    return add(output, attended)


def attention(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor | None]:
    """GPTNeoXAttention: (b, s, hidden) -> (b, s, hidden), and eager's weights."""
    qkv = transpose(by_head(m.linear(x, "query_key_value", 3 * c.hidden, c.attention_bias), 3 * c.head_dim), 1, 2)
    q, k, v = split(qkv, 3 * (c.head_dim,), 3)
    q, k = rotary.apply_neox_rotary(q, k, given.cos, given.sin)
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    out, weights = attending.attention(m, q, k, v, given.mask, given.places)
    out = m.linear(out, "dense", c.hidden, c.attention_bias)
    return out, weights


def mlp(m: Builder, x: Tensor, c: Config) -> Tensor:
    """GPTNeoXMLP: (b, s, hidden) -> (b, s, hidden)."""
    hidden = m.linear(x, "dense_h_to_4h", c.intermediate, bias=True)
    hidden = blocks.activation(hidden, c.hidden_act)
    hidden = m.linear(hidden, "dense_4h_to_h", c.hidden, bias=True)
    return hidden


def embed(m: Builder, batch: Batch, c: Config) -> Tensor:
    """nn.Embedding by its name here."""
    return m.embedding(batch, "embed_in", c.vocab, c.hidden)


PARTS = llama.Parts(embed=embed, layer=layer, norm=Builder.layer_norm, last_norm="final_layer_norm")
