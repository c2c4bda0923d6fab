"""Attention in groups of tokens, half of the heads in shifted ones: what methods/of_lora/shifted.py writes."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch

from memcalc.errors import NotModelled
from memcalc.methods.of_lora.shifted import check_model, group_size
from memcalc.realize.freezing import anatomy_of


def shift(model: Any, ratio: float) -> None:
    """Put a function around the one that each attention module looks up: it is asked whether it `is_causal`.

    The module's forward alone is within what a checkpoint runs again.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    check_model(anatomy_of(model))
    if not hasattr(FUNCTIONS, "get_interface"):
        raise NotModelled("--group-size-ratio needs transformers 5.24 or newer in trace and profile")
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.forward = _around(module.forward, FUNCTIONS, ratio)


def _around(forward: Callable[..., Any], functions: Any, ratio: float) -> Callable[..., Any]:
    """An attention module's forward, in which every function that it finds works in groups."""
    find = type(functions).get_interface

    def found(implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return partial(_attend, find(functions, implementation, default), ratio)

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        functions.get_interface = found
        try:
            return forward(*args, **kwargs)
        finally:
            del functions.get_interface

    return run


def _attend(
    attend: Callable[..., Any],
    ratio: float,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An attention function's output (b, s, heads, d) for queries (b, heads, s, d), keys and values, in groups."""
    if not module.training:
        whole: tuple[torch.Tensor, torch.Tensor | None] = attend(module, query, key, value, attention_mask, **options)
        return whole
    b, heads, s, d = query.shape
    size = group_size(s, ratio, key.shape[1])
    of_first = _of_first(attention_mask, s // size, size)
    out, weights = attend(module, *(_grouped(x, size) for x in (query, key, value)), of_first, **options)
    out = out.reshape(b, s, heads, d)
    return _joined(out, size // 2), weights


def _grouped(x: torch.Tensor, size: int) -> torch.Tensor:
    """(b, heads, s, d) -> (b * s / size, heads, size, d)."""
    b, heads, s, d = x.shape
    joined = _joined(x.transpose(1, 2), -size // 2)
    return joined.view(b * s // size, size, heads, d).transpose(1, 2)


def _joined(x: torch.Tensor, by: int) -> torch.Tensor:
    """(b, s, heads, d), the second half of the heads rolled along the sequence."""
    still, moved = x.chunk(2, dim=2)
    return torch.cat((still, moved.roll(by, dims=1)), dim=2)


def _of_first(mask: torch.Tensor | None, count: int, size: int) -> torch.Tensor | None:
    """The first group's mask for each group: (b, 1, s, s) or (b, s), cut, and repeated by a view where it can be."""
    if mask is None:
        return None
    cut = mask[:, :, :size, :size] if mask.dim() > 2 else mask[:, :size]
    return cut.unsqueeze(1).expand(-1, count, *cut.shape[1:]).flatten(0, 1)
