"""StarCoder2: Llama with layer norms, an MLP without a gate, biases everywhere and three dropouts.

Source: transformers 5.24.0, models/starcoder2/modeling_starcoder2.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, Keys, one_window, read_decoder, whole_pairs
from memcalc.tape import blocks
from memcalc.tape.builder import Builder
from memcalc.tape.ops.elementwise import dropout
from memcalc.tape.tape import Tensor

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS

KEYS = Keys(
    attention_bias=("use_bias",), hidden_dropout=("residual_dropout",), embedding_dropout=("embedding_dropout",)
)
DEFAULTS = Defaults(
    intermediate=12288, kv_heads=2, max_positions=4096, hidden_act="gelu_pytorch_tanh", attention_bias=True, tied=True
)


def read(model: Model) -> Config:
    """Starcoder2Config."""
    c = one_window(whole_pairs(read_decoder(model, DEFAULTS, KEYS)), default=0)
    return replace(c, mlp_bias=c.attention_bias, output_dropout=c.hidden_dropout)


def mlp(m: Builder, x: Tensor, c: Config) -> Tensor:
    """Starcoder2MLP: (b, s, hidden) -> (b, s, hidden)."""
    hidden = m.linear(x, "c_fc", c.intermediate, c.mlp_bias)
    hidden = blocks.activation(hidden, c.hidden_act)
    hidden = m.linear(hidden, "c_proj", c.hidden, c.mlp_bias)
    return dropout(hidden, c.hidden_dropout if m.training else 0.0)


forward = partial(llama.forward, p=llama.Parts(norm=Builder.layer_norm, mlp=mlp, hands_back=False))
