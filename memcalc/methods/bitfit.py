"""BitFit: biases alone."""

from dataclasses import dataclass
from typing import final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Method


@final
@dataclass(frozen=True, slots=True)
class BitFit(Method):
    """BitFit: the biases train, all else is frozen (Ben Zaken et al. 2021, arXiv:2106.10199, section 3).

    Trainable parameters: the biases of all linear layers and norms, d_out each. Adds nothing to the model.
    Keeps for backward: no linear layer's input, since a bias's gradient is a sum of the incoming one; what activations,
    norms and attention need stays, from the lowest bias on.
    """

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        biases = frozenset(name for name in model.parameters if name.endswith(".bias"))
        if not biases:
            raise InvalidWorkload(f"--method bitfit trains biases: this {model.model_type} model has none")
        return biases


METHOD = BitFit
