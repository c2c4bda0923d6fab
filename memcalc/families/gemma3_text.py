"""Gemma 3's language model: Gemma 2 with norms over query and key, and rotary embeddings for each kind of layer.

Source: transformers 5.24.0, models/gemma3/modeling_gemma3.py.
"""

from dataclasses import replace
from functools import partial

from memcalc.catalog.find import Model
from memcalc.families import gemma, gemma2, llama
from memcalc.families.config import Config, layer_windows, read_decoder
from memcalc.tape import attending, rotary
from memcalc.tape.builder import Builder
from memcalc.tape.tape import Array, Tensor

MODULES, LAYERS, HEAD = llama.MODULES, llama.LAYERS, llama.HEAD
LAYER_MODULES = (*llama.NORMED_ATTENTION, "mlp", *gemma2.NORMS)
ATTENTIONS, LEARNED_POSITIONS = llama.ATTENTIONS, llama.LEARNED_POSITIONS


def read(model: Model) -> Config:
    """Gemma3TextConfig."""
    c = gemma.one_way(read_decoder(model, gemma2.DEFAULTS._replace(max_positions=131_072), gemma2.KEYS))
    window = c.fields.integer("sliding_window", default=4096, at_least=1)
    pattern = c.fields.integer("sliding_window_pattern", default=6, at_least=1)
    return replace(c, windows=layer_windows(c, window, lambda layer: (layer + 1) % pattern != 0), masks=(0, window))


def project(m: Builder, x: Tensor, c: Config) -> tuple[Tensor, ...]:
    """Queries, keys and values, the first two normed once they are transposed."""
    q, k, v = llama.project(m, x, c)
    q = gemma.norm(m, q, "q_norm")
    k = gemma.norm(m, k, "k_norm")
    return q, k, v


def turn(m: Builder, dtype: str, places: Array, c: Config) -> dict[int, tuple[Tensor, Tensor]]:
    """Cosine and sine for each kind of layer that there is."""
    kinds = {window: "sliding_attention_" if window else "full_attention_" for window in sorted(set(c.windows))}
    return {
        window: m.call("rotary_emb", rotary.rotary, dtype, places, c.head_dim, kind) for window, kind in kinds.items()
    }


def rescale(c: Config) -> attending.Steps:
    """The logits' soft cap, where one is set."""
    return attending.SOFTCAP if gemma2.capped(c, "final_logit_softcapping", default=False) else ()


forward = partial(
    llama.forward,
    p=llama.Parts(embed=gemma.embed, turn=turn, norm=gemma.norm, norms=gemma2.NORMS, project=project, rescale=rescale),
)
