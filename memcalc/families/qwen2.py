"""Qwen2: Llama with biased query, key and value; some layers may see a window.

Source: transformers 5.24.0, models/qwen2/modeling_qwen2.py.
"""

from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, read_llama_like, some_windows

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

forward = partial(llama.forward, p=llama.Parts(hands_back=False))


def read(model: Model) -> Config:
    """Qwen2Config."""
    return some_windows(read_llama_like(model))
