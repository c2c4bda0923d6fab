"""OLMo 2: Llama with its norms behind attention and MLP, norms over query and key, rotary embeddings in fp32.

Source: transformers 5.24.0, models/olmo2/modeling_olmo2.py.
"""

from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, read_decoder, whole_pairs
from memcalc.tape import blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.ops.views import heads
from memcalc.tape.tape import Array, Tensor

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = (*llama.NORMED_ATTENTION, "mlp", "post_attention_layernorm", "post_feedforward_layernorm")
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """Olmo2Config."""
    return whole_pairs(read_decoder(model, Defaults(intermediate=11008)))


def norm(m: Builder, x: Tensor, name: str) -> Tensor:
    """Olmo2RMSNorm: the weight is applied in fp32."""
    return m.rms_norm(x, name, blocks.wide_rms_norm)


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values, the first two normed whole: (b, s, hidden) -> (b, heads, s, head_dim)."""
    q = norm(m, m.linear(x, "q_proj", c.heads * c.head_dim, c.attention_bias), "q_norm")
    k = norm(m, m.linear(x, "k_proj", c.kv_heads * c.head_dim, c.attention_bias), "k_norm")
    v = m.linear(x, "v_proj", c.kv_heads * c.head_dim, c.attention_bias)
    return heads(q, c.head_dim), heads(k, c.head_dim), heads(v, c.head_dim)


def fp32_rotary(m: Builder, dtype: str, places: Array, dim: int) -> tuple[Tensor, Tensor]:
    """Olmo2RotaryEmbedding: cosine and sine stay in fp32."""
    return rotary.rotary(m, "fp32", places, dim)


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb: cast back at its end."""
    q_embed, k_embed = rotary.apply_rotary(q, k, cos, sin)
    return cast(q_embed, q.dtype), cast(k_embed, k.dtype)


forward = partial(
    llama.forward,
    p=llama.Parts(
        turn=llama.turn_by(fp32_rotary),
        norm=norm,
        norms=("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
        project=project,
        rotate=rotate,
    ),
)
