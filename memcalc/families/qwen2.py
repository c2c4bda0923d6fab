"""Qwen2: Llama with biased query, key and value. Source: transformers 5.24.0, models/qwen2/modeling_qwen2.py."""

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled
from memcalc.families import llama
from memcalc.families.config import Config, read_llama_like

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

forward = llama.forward


def read(model: Model) -> Config:
    """The config; raises NotModelled where some layers see a window and others do not."""
    c = read_llama_like(model)
    if c.fields.flag("use_sliding_window", default=False):
        raise NotModelled(f"{c.name}: estimate does not write layers of two kinds of window yet: use memcalc trace")
    return c
