"""LoRA+'s part: an optimizer that steps A, then B.

Source: peft 0.21.2, optimizers/loraplus.py, create_loraplus_optimizer.
"""

from collections.abc import Mapping

from memcalc.methods.base import OptimizerMaker


def maker(ratio: float) -> OptimizerMaker:
    """Whoever uses LoRA+ calls it before the loop; it spares no embedding of any optimizer that is known here."""
    return OptimizerMaker("create_loraplus_optimizer", {"loraplus_lr_ratio": ratio})


def groups(trained: Mapping[str, tuple[int, ...]], layer_norms: frozenset[str]) -> list[list[str]]:
    """A, and all else of more than one dimension; adapted embeddings: none; B and vectors, those that decay first."""
    slow, decaying, others = [], [], []
    for name, shape in trained.items():
        if "lora_B" not in name and len(shape) != 1:
            slow.append(name)
        elif "bias" in name or name in layer_norms:
            others.append(name)
        else:
            decaying.append(name)
    return [slow, [], decaying, others]
