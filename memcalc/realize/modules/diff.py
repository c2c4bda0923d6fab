"""Diff pruning: a difference from pretrained weights that a penalty drives to zero (arXiv:2012.07463, section 3)."""

import functools
from math import log
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from memcalc.methods.diff_pruning import refuse_packed
from memcalc.realize.modules.around import Around, Like, put_around

_LOW, _HIGH = -1.5, 1.5  # how far the concrete distribution is stretched
_PENALTY = 1.25e-7  # per parameter that is not zero
_AT_FIRST = 5.0  # of the masks' parameters: nearly all of them are open


def put(model: Any, targets: list[str], like: Like, *, grouped: bool) -> None:
    """A difference of every parameter of each target, and their penalty in the model's loss."""
    diffs: list[Diff] = []
    for name in targets:
        base = model.get_submodule(name)
        refuse_packed(name, packed=not base.weight.is_floating_point())
        changed = Changed(base, like(base), grouped=grouped)
        put_around(model, name, changed)
        diffs += (diff for diff in changed.diffs.values() if isinstance(diff, Diff))
    forward = model.forward

    @functools.wraps(forward)
    def penalized(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if output.loss is not None:
            output.loss = output.loss + penalty(diffs) * _PENALTY
        return output

    model.forward = penalized


def penalty(diffs: list["Diff"]) -> torch.Tensor:
    """How many parameters are expected to differ."""
    total = diffs[0].expected()
    for diff in diffs[1:]:
        total = total + diff.expected()
    return total


class Diff(nn.Module):
    """A parameter's difference: its values, and a mask that is drawn anew in each forward.

    The mask is hard-concrete (Louizos et al. 2018, arXiv:1712.01312, section 2.2): a stretched sigmoid that is cut off
    at 0 and 1.
    """

    def __init__(self, shape: torch.Size, like: dict[str, Any], *, grouped: bool) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(shape, **like))
        self.log_alpha = nn.Parameter(torch.full(shape, _AT_FIRST, **like))
        self.group_log_alpha = nn.Parameter(torch.full((1,), _AT_FIRST, **like)) if grouped else None

    def forward(self) -> torch.Tensor:
        return self.mask() * self.delta

    def mask(self) -> torch.Tensor:
        """Of each element, times that of the parameter as a whole where it has one."""
        mask = self._drawn(self.log_alpha)
        return mask if self.group_log_alpha is None else mask * self._drawn(self.group_log_alpha)

    def _drawn(self, log_alpha: torch.Tensor) -> torch.Tensor:
        logits = log_alpha
        if self.training:
            logits = logits + torch.rand_like(logits).logit_(1e-4)
        return F.hardtanh(torch.sigmoid(logits) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)

    def expected(self) -> torch.Tensor:
        """How many of the mask's elements are expected to be above zero."""
        each = _above_zero(self.log_alpha)
        return each if self.group_log_alpha is None else each * _above_zero(self.group_log_alpha)


def _above_zero(log_alpha: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(log_alpha - log(-_LOW / _HIGH)).sum()


class Changed(Around):
    """A linear layer by weights (and biases) that differ from its own."""

    def __init__(self, base_layer: nn.Module, like: dict[str, Any], *, grouped: bool) -> None:
        super().__init__(base_layer)
        own = base_layer.named_parameters()
        self.diffs = nn.ModuleDict({name: Diff(parameter.shape, like, grouped=grouped) for name, parameter in own})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = {
            name: parameter + self.diffs[name]().to(parameter.dtype)
            for name, parameter in self.base_layer.named_parameters()
        }
        return functional_call(self.base_layer, changed, (x,))
