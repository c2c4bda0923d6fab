"""A module that stands where one of the model's stood."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Like = Callable[[Any], dict[str, Any]]  # device and dtype of what is put beside a module, as nn.Linear takes them


class Around(nn.Module):
    """Stands where one of the model's modules stood, and keeps it as base_layer."""

    frozen: tuple[str, ...] = ()  # what beside base_layer does not train

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer


def put_around(model: nn.Module, name: str, module: Around) -> None:
    """Put a module where the one that it is around stands."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def added(model: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """The parameters that stand around the model's own, and whether they train."""
    for module in model.modules():
        if isinstance(module, Around):
            for name, child in module.named_children():
                if name != "base_layer":
                    yield from ((parameter, name not in module.frozen) for parameter in child.parameters())


def outputs(linear: Any) -> int:
    """The width of a linear layer's output; transformers' Conv1D has a word of its own for it."""
    return int(linear.nf if hasattr(linear, "nf") else linear.out_features)


def inputs(linear: Any) -> int:
    """The width of a linear layer's input."""
    return int(linear.nx if hasattr(linear, "nx") else linear.in_features)


def in_own_dtype(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x as an adapter's weight can multiply it; autocast sees to that by itself."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype)
