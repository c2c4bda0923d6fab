"""GLM-4: Llama with four norms a layer, a fused gate, and pairs turned in a part of each head.

Source: transformers 5.24.0, models/glm4/modeling_glm4.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama, phi3
from memcalc.families.config import Config, Defaults, read_decoder, rotary_dim
from memcalc.tape import rotary

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = (
    *("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"),
    *("post_self_attn_layernorm", "post_mlp_layernorm"),
)
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

DEFAULTS = Defaults(intermediate=13696, kv_heads=2, head_dim=128, max_positions=131_072, attention_bias=True)


def read(model: Model) -> Config:
    """Glm4Config: the output projection has no bias."""
    c = read_decoder(model, DEFAULTS)
    return replace(c, output_bias=False, rotary_dim=rotary_dim(c, 0.5))


forward = partial(
    llama.forward,
    p=llama.Parts(
        norms=("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"),
        rotate=partial(rotary.apply_neox_rotary, paired=True),
        mlp=phi3.mlp,
    ),
)
