"""Phi-3: Llama with fused projections, a part of each head turned, dropout on the residuals.

Source: transformers 5.24.0, models/phi3/modeling_phi3.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, Keys, one_window, read_decoder, rotary_dim
from memcalc.tape import blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.ops.elementwise import add, dropout
from memcalc.tape.ops.views import heads, narrow
from memcalc.tape.tape import Tensor

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = ("self_attn.o_proj", "self_attn.qkv_proj", *llama.LAYER_MODULES[1:])
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

KEYS = Keys(attention_bias=(), hidden_dropout=("resid_pdrop",))


def read(model: Model) -> Config:
    """Phi3Config."""
    c = one_window(read_decoder(model, Defaults(intermediate=8192, max_positions=4096), KEYS), default=0)
    older = {"su": "longrope", "yarn": "longrope"}
    return replace(c, rotary_dim=rotary_dim(c, 1.0), rope_type=older.get(c.rope_type, c.rope_type))


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values, slices of one product: (b, s, hidden) -> (b, heads, s, head_dim)."""
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    qkv = m.linear(x, "qkv_proj", queries + 2 * keys)
    q, k, v = narrow(qkv, 2, queries), narrow(qkv, 2, keys), narrow(qkv, 2, keys)
    return heads(q, c.head_dim), heads(k, c.head_dim), heads(v, c.head_dim), qkv


def mlp(m: Builder, x: Tensor, c: Config) -> Tensor:
    """Phi3MLP: (b, s, hidden) -> (b, s, hidden)."""
    return blocks.fused_gated_mlp(m, x, c.intermediate, c.hidden_act)


def join(m: Builder, residual: Tensor, x: Tensor, c: Config) -> Tensor:
    """The residual connection, with dropout on its branch."""
    return add(residual, dropout(x, c.hidden_dropout if m.training else 0.0))


forward = partial(
    llama.forward,
    p=llama.Parts(project=project, rotate=rotary.apply_partial_rotary, mlp=mlp, join=join, hands_back=False),
)
