"""Mistral: Llama with a window over the keys. Source: transformers 5.24.0, models/mistral/modeling_mistral.py."""

from functools import partial

from memcalc.families import llama
from memcalc.families.config import read_llama_like

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

read = read_llama_like
# the window is read from the config, and acts in the masks alone
forward = partial(llama.forward, p=llama.Parts(hands_back=False))
