"""Tiny workloads, and the part of a recording that real CPU tensors must repeat."""

from typing import Any, Final

from memcalc.catalog.find import Model
from memcalc.timeline import Timeline
from memcalc.workload import Workload

_LLAMA: Final = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000,
                 "max_position_embeddings": 256, "tie_word_embeddings": False}  # fmt: skip
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "model_type": "mistral"},
    "qwen2": {**_LLAMA, "model_type": "qwen2", "tie_word_embeddings": True},
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
}
_HOST_OPS: Final = frozenset({"arange", "remainder", "ones_like", "clone", "zeros"})  # a collator's, in no module
_DRAWN: Final = {
    "rand": 4,
    "gt": 1,
}  # bytes of a number that some methods draw on the host, and of what it is found to be


def tiny(family: str = "llama", method: str = "lora", **options: Any) -> Workload:
    """A workload of two layers, 2 × 32 tokens."""
    model = Model(name=f"tiny-{family}", config=CONFIGS[family], source="test")
    return Workload.of(model, method, **{"batch": 2, "seq_len": 32, "gpu": "a100-80gb", **options})


def steps_of(timeline: Timeline) -> Timeline:
    """What happens after loading, without what a host does for itself when it is the device as well."""
    loaded = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    kept, rows = Timeline(), dict[int, int]()
    for at, event in enumerate(timeline.events):
        if event < 0:
            if ~event in rows:
                kept.death(rows[~event])
            continue
        module, op = timeline.labels[event]
        drawn = _DRAWN.get(op.removesuffix(" (recomputed)")) == timeline.nbytes[event]
        if at >= loaded and not drawn and not (module == "" and op in _HOST_OPS):
            rows[event] = kept.birth(timeline.nbytes[event], timeline.categories[event], module, op)
    return kept
