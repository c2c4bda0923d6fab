"""Gemma: Llama with scaled embeddings, and norms whose weight is centred at one and applied in fp32.

Source: transformers 5.24.0, models/gemma/modeling_gemma.py.
"""

from functools import partial

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled
from memcalc.families import llama
from memcalc.families.config import Config, Defaults, read_decoder, whole_pairs
from memcalc.tape import blocks
from memcalc.tape.builder import Builder
from memcalc.tape.prelude import Batch
from memcalc.tape.tape import Tensor

MODULES, LAYER_MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYER_MODULES, llama.LAYERS, llama.HEAD
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """GemmaConfig."""
    return one_way(
        read_decoder(
            model,
            Defaults(
                intermediate=24576, kv_heads=16, head_dim=256, max_positions=8192, hidden_act="gelu_pytorch_tanh",
                tied=True,
            ),
        )
    )  # fmt: skip


def one_way(c: Config) -> Config:
    """The config itself. Raises NotModelled where queries see what follows them."""
    if c.fields.flag("use_bidirectional_attention", default=False):
        raise NotModelled(f"{c.fields.source}: estimate does not write use_bidirectional_attention: use memcalc trace")
    return whole_pairs(c)


def embed(m: Builder, batch: Batch, c: Config) -> Tensor:
    """GemmaTextScaledWordEmbedding: times the root of the hidden size, a buffer."""
    return m.embedding(batch, "embed_tokens", c.vocab, c.hidden, scaled=True)


def norm(m: Builder, x: Tensor, name: str) -> Tensor:
    """GemmaRMSNorm."""
    return m.rms_norm(x, name, blocks.centred_rms_norm)


forward = partial(llama.forward, p=llama.Parts(embed=embed, norm=norm, hands_back=False))
