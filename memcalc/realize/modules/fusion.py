"""AdapterFusion: attention over the outputs of adapters (Pfeiffer et al. 2020, arXiv:2005.00247, section 3.2)."""

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
    adapters: int,
    bottleneck: int,
    reduction_factor: float,
    non_linearity: str,
) -> None:
    """Adapters behind each target, and what fuses them."""
    for name in targets:
        base = model.get_submodule(name)
        d = outputs(base)
        narrow = width(d, bottleneck, reduction_factor)
        several = [Bottleneck(d, narrow, non_linearity, like(base)) for _ in range(adapters)]
        put_around(model, name, Fused(base, several, Fusion(d, like(base))))


class Fusion(nn.Module):
    """What each position takes from which adapter: queries of the layer's output, keys and values of the adapters'."""

    def __init__(self, d: int, like: dict[str, Any]) -> None:
        super().__init__()
        self.query = nn.Linear(d, d, **like)
        self.key = nn.Linear(d, d, **like)
        self.value = nn.Linear(d, d, bias=False, **like)
        nn.init.eye_(self.value.weight)  # at first adapters are averaged by attention alone

    def forward(self, h: torch.Tensor, adapted: torch.Tensor) -> torch.Tensor:  # (..., d), (..., n, d) -> (..., d)
        n, d = adapted.shape[-2:]
        q = self.query(h).view(-1, 1, d)
        k = self.key(adapted).view(-1, n, d)
        v = self.value(adapted).view(-1, n, d)
        probabilities = torch.bmm(q, k.transpose(1, 2)).softmax(-1)  # (positions, 1, n)
        return torch.bmm(probabilities, v).view(h.shape)


class Fused(Around):
    """h + fusion(h, adapters of h), h being the output of the layer; the adapters were trained before."""

    frozen = ("adapters",)

    def __init__(self, base_layer: nn.Module, adapters: list[Bottleneck], fusion: Fusion) -> None:
        super().__init__(base_layer)
        self.adapters = nn.ModuleList(adapters)
        self.fusion = fusion

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        h = self.base_layer(y)
        x = in_own_dtype(h, self.fusion.value.weight)
        adapted = torch.stack([adapter(x) for adapter in self.adapters], dim=-2)
        update = self.fusion(x, adapted)
        return h + update.to(h.dtype)
