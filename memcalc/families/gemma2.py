"""Gemma 2: Gemma with four norms a layer, soft caps on scores and logits, a window in every other layer.

Source: transformers 5.24.0, models/gemma2/modeling_gemma2.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import gemma, llama
from memcalc.families.config import Config, Defaults, Keys, layer_windows, read_decoder
from memcalc.tape import attending

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
LAYER_MODULES = ("self_attn", "mlp", *NORMS)
ATTENTIONS, LEARNED_POSITIONS = ("eager", "flash_attention_2"), llama.LEARNED_POSITIONS  # sdpa knows no soft cap

KEYS = Keys(hidden_act=("hidden_activation",))
DEFAULTS = Defaults(
    intermediate=9216, kv_heads=4, head_dim=256, max_positions=8192, hidden_act="gelu_pytorch_tanh", tied=True,
    divisible=True,
)  # fmt: skip


def read(model: Model) -> Config:
    """Gemma2Config."""
    c = gemma.one_way(read_decoder(model, DEFAULTS, KEYS))
    window = c.fields.integer("sliding_window", default=4096, at_least=1)
    windows = layer_windows(c, window, lambda layer: layer % 2 == 0)
    return replace(c, windows=windows, masks=(0, window), softcap=capped(c, "attn_logit_softcapping", default=True))


def capped(c: Config, key: str, *, default: bool) -> bool:
    """Whether a soft cap is set: a null says no."""
    return c.fields.raw(key) is not None if key in c.fields else default


def rescale(c: Config) -> attending.Steps:
    """The logits' soft cap."""
    return attending.SOFTCAP if capped(c, "final_logit_softcapping", default=True) else ()


forward = partial(llama.forward, p=llama.Parts(embed=gemma.embed, norm=gemma.norm, norms=NORMS, rescale=rescale))
