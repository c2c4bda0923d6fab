"""Granite: Llama with multipliers of embeddings, residuals and logits.

Source: transformers 5.24.0, models/granite/modeling_granite.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, read_decoder, whole_pairs
from memcalc.tape.builder import Builder
from memcalc.tape.ops.elementwise import add, divide, scale
from memcalc.tape.prelude import Batch
from memcalc.tape.tape import Tensor

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """GraniteConfig."""
    c = whole_pairs(read_decoder(model, Defaults(intermediate=11008)))
    return replace(c, mlp_bias=c.fields.flag("mlp_bias", default=False))


def embed(m: Builder, batch: Batch, c: Config) -> Tensor:
    """Embeddings times embedding_multiplier, even where that is one."""
    return scale(llama.embed(m, batch, c))


def join(m: Builder, residual: Tensor, x: Tensor, c: Config) -> Tensor:
    """The residual connection, its branch times residual_multiplier."""
    return add(residual, scale(x))


forward = partial(llama.forward, p=llama.Parts(embed=embed, join=join, rescale=lambda _: (divide,)))
