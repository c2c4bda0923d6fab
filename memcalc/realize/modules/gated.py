"""LoRA, a prefix and adapters, each let in by a gate (Mao et al. 2021, arXiv:2110.07577, section 3.2)."""

from typing import Any

import torch
from torch import nn

from memcalc.anatomy import goes_by
from memcalc.methods.of_adapters.bottleneck import width
from memcalc.realize.modules.around import Around, Like, in_own_dtype, inputs, outputs, put_around
from memcalc.realize.modules.bottleneck import Bottleneck


def put(
    model: nn.Module,
    targets: list[str],
    like: Like,
    *,
    ends: tuple[str, ...],
    first: tuple[str, ...],
    rank: int,
    scaling: float,
    bottleneck: int,
    reduction_factor: float,
    non_linearity: str,
) -> None:
    """Adapters behind the targets in which feed-forwards end, LoRA beside the others; `first` is called by attention
    before it sees its cache.
    """
    for name in targets:
        base = model.get_submodule(name)
        d = outputs(base)
        if goes_by(name, ends):
            adapter = Bottleneck(d, width(d, bottleneck, reduction_factor), non_linearity, like(base))
            put_around(model, name, GatedAdapter(base, adapter, Gate(d, like(base))))
            continue
        attention = model.get_submodule(name.rpartition(".")[0]) if goes_by(name, first) else None
        put_around(model, name, GatedLora(base, rank, scaling, like(base), attention))


class Gate(nn.Module):
    """How far a row is let in: the mean of its positions' answers."""

    def __init__(self, d: int, like: dict[str, Any]) -> None:
        super().__init__()
        self.open = nn.Linear(d, 1, **like)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (..., s, d) -> (..., 1, 1)
        return torch.sigmoid(self.open(x)).squeeze(-1).mean(-1, keepdim=True).unsqueeze(-1)


class GatedAdapter(Around):
    """h + gate(h) * adapter(h), h being the output of the layer."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck, gate: Gate) -> None:
        super().__init__(base_layer)
        self.adapter = adapter
        self.gate = gate

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        h = self.base_layer(y)
        x = in_own_dtype(h, self.adapter.down.weight)
        update = self.adapter(x) * self.gate(x)
        return h + update.to(h.dtype)


class GatedLora(Around):
    """W x + gate(x) * scaling * B A x; in attention's first layer a gate of its own lets the layer's prefix in."""

    def __init__(
        self, base_layer: nn.Module, rank: int, scaling: float, like: dict[str, Any], attention: nn.Module | None
    ) -> None:
        super().__init__(base_layer)
        d_in = inputs(base_layer)
        self.lora_a = nn.Linear(d_in, rank, bias=False, **like)
        self.lora_b = nn.Linear(rank, outputs(base_layer), bias=False, **like)
        nn.init.zeros_(self.lora_b.weight)
        self.gate = Gate(d_in, like)
        self.scaling = scaling
        self.prefix_gate = None if attention is None else Gate(d_in, like)
        self._seen: list[Any] = []
        if attention is not None:
            attention.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The part of the cache that attention is about to lengthen."""
        for value in (*args, *kwargs.values()):
            if hasattr(value, "layers") and hasattr(value, "update"):
                self._seen = [value.layers[attention.layer_idx]]

    def _let_prefix_in(self, x: torch.Tensor) -> None:
        """The keys and values that the layer's cache begins with, times the gate."""
        if self.prefix_gate is None or not self._seen:
            return
        past = self._seen.pop()
        opened = self.prefix_gate(x).unsqueeze(-1).to(past.keys.dtype)
        past.keys = past.keys * opened
        past.values = past.values * opened

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = in_own_dtype(x, self.lora_a.weight)
        self._let_prefix_in(low)
        h = self.base_layer(x)
        update = self.lora_b(self.lora_a(low)) * self.scaling * self.gate(low)
        return h + update.to(h.dtype)
