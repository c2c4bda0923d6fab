"""Cohere's Command R: attention and MLP side by side, pairs turned in fp32, scaled logits.

Source: transformers 5.24.0, models/cohere/modeling_cohere.py.
"""

from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, read_decoder, whole_pairs
from memcalc.tape import blocks, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, cast, scale
from memcalc.tape.ops.views import by_head, transpose
from memcalc.tape.tape import Tensor

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = (*llama.NORMED_ATTENTION, "mlp", "input_layernorm")
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """CohereConfig."""
    return whole_pairs(read_decoder(model, Defaults(intermediate=22528, max_positions=8192, tied=True)))


def layer(m: Builder, x: Tensor, given: Given, c: Config, p: llama.Parts) -> Tensor:
    """CohereDecoderLayer: (b, s, hidden) -> (b, s, hidden)."""
    residual = x
    hidden = norm(m, x, "input_layernorm")
    attended, _weights = m.call("self_attn", p.attention, hidden, given, c, p)
    output = m.call("mlp", p.mlp, hidden, c)
    return add(add(residual, attended), output)


def norm(m: Builder, x: Tensor, name: str) -> Tensor:
    """CohereLayerNorm: over the last dim, with a weight for all others but batch and position."""
    return m.rms_norm(x, name, blocks.mean_free_norm, x.shape[2:])


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values, the first two normed head by head where the config says so."""
    q = by_head(m.linear(x, "q_proj", c.heads * c.head_dim, c.attention_bias), c.head_dim)
    k = by_head(m.linear(x, "k_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    v = by_head(m.linear(x, "v_proj", c.kv_heads * c.head_dim, c.attention_bias), c.head_dim)
    if c.fields.flag("use_qk_norm", default=False):
        q = norm(m, q, "q_norm")
        k = norm(m, k, "k_norm")
    return transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb: neighbours are turned in fp32; keys take the queries' dtype, as adapters leave it."""
    q_wide, k_wide = cast(q, "fp32"), cast(k, "fp32")
    q_embed, k_embed = rotary.apply_rotary(q_wide, k_wide, cos, sin, paired=True)
    return cast(q_embed, q.dtype), cast(k_embed, q.dtype)


forward = partial(
    llama.forward,
    p=llama.Parts(
        turn=llama.turn_by(rotary.paired_rotary), layer=layer, norm=norm, project=project, rotate=rotate,
        rescale=lambda _: (scale,),
    ),
)  # fmt: skip
