"""Bottleneck adapters beside feed-forwards (He et al. 2021, arXiv:2110.04366, section 4)."""

from typing import Any

import torch
from torch import nn

from memcalc.methods.of_adapters.bottleneck import width
from memcalc.realize.modules.around import Around, Like, in_own_dtype, outputs, put_around
from memcalc.realize.modules.bottleneck import Bottleneck


def put(
    model: nn.Module,
    targets: list[str],
    like: Like,
    *,
    begins: tuple[str, ...],
    bottleneck: int,
    reduction_factor: float,
    non_linearity: str,
    scaling: float,
) -> None:
    """An adapter beside each feed-forward that ends in a target and begins with a sibling that is named."""
    for name in targets:
        base = model.get_submodule(name)
        parent = model.get_submodule(name.rpartition(".")[0])
        first = next(child for own_name, child in parent.named_children() if own_name in begins)
        d = outputs(base)
        adapter = Bottleneck(d, width(d, bottleneck, reduction_factor), non_linearity, like(base))
        put_around(model, name, Beside(base, adapter, scaling, first))


class Beside(Around):
    """h + scaling * adapter(x), h being the output of a sub-layer and x its input, as its first layer sees it."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck, scaling: float, first: nn.Module) -> None:
        super().__init__(base_layer)
        self.adapter = adapter
        self.scaling = scaling
        self._seen: list[torch.Tensor] = []
        first.register_forward_pre_hook(self._see)

    def _see(self, first: nn.Module, args: tuple[Any, ...]) -> None:
        self._seen = [args[0]]

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        h = self.base_layer(y)
        x = self._seen.pop()
        update = self.adapter(in_own_dtype(x, self.adapter.down.weight)) * self.scaling
        return h + update.to(h.dtype)
