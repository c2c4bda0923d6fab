"""Bottleneck adapters behind linear layers (Houlsby et al. 2019, arXiv:1902.00751, section 2.1)."""

from typing import Any

import torch
from torch import nn

from memcalc.methods.of_adapters.bottleneck import width
from memcalc.realize.modules.around import Around, Like, in_own_dtype, outputs, put_around


def put(
    model: nn.Module, targets: list[str], like: Like, *, bottleneck: int, reduction_factor: float, non_linearity: str
) -> None:
    """An adapter behind each target."""
    for name in targets:
        base = model.get_submodule(name)
        d = outputs(base)
        adapter = Bottleneck(d, width(d, bottleneck, reduction_factor), non_linearity, like(base))
        put_around(model, name, Behind(base, adapter))


class Bottleneck(nn.Module):
    """up(f(down(x))), both layers with a bias; nearly nothing at first."""

    def __init__(self, d: int, width: int, non_linearity: str, like: dict[str, Any]) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        self.down = nn.Linear(d, width, **like)
        self.act = ACT2FN[non_linearity]
        self.up = nn.Linear(width, d, **like)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.act(self.down(x)))


class Behind(Around):
    """h + adapter(h), h being the output of the layer."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.base_layer(x)
        update = self.adapter(in_own_dtype(h, self.adapter.down.weight))
        return h + update.to(h.dtype)
