"""Qwen3: Llama with a norm over each head of query and key; some layers may see a window.

Source: transformers 5.24.0, models/qwen3/modeling_qwen3.py.
"""

from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, read_decoder, some_windows, whole_pairs
from memcalc.tape.builder import Builder
from memcalc.tape.ops.views import by_head, heads, transpose
from memcalc.tape.tape import Tensor

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = (*llama.NORMED_ATTENTION, *llama.LAYER_MODULES[1:])
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """Qwen3Config."""
    return some_windows(
        whole_pairs(read_decoder(model, Defaults(intermediate=22016, kv_heads=32, head_dim=128, max_positions=32768)))
    )


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values, the first two normed head by head: (b, s, hidden) -> (b, heads, s, head_dim)."""
    q = by_head(m.linear(x, "q_proj", c.heads * c.head_dim, c.attention_bias), c.head_dim)
    q = transpose(m.rms_norm(q, "q_norm"), 1, 2)
    k = by_head(m.linear(x, "k_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    k = transpose(m.rms_norm(k, "k_norm"), 1, 2)
    v = heads(m.linear(x, "v_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    return q, k, v


forward = partial(llama.forward, p=llama.Parts(project=project, hands_back=False))
