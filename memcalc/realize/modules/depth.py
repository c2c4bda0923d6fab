"""Mixture-of-Depths: layers for the tokens that a router chooses (Raposo et al. 2024, arXiv:2404.02258, section 3)."""

import inspect
from typing import Any

import torch
from torch import nn

from memcalc.methods.mixture_of_depths import tokens_through
from memcalc.realize.modules.around import Like


def put(model: Any, targets: list[str], like: Like, *, capacity: float) -> None:
    """A router in each target, one of the repeated layers, which then sees the chosen tokens alone."""
    for name in targets:
        layer = model.get_submodule(name)
        neighbour = next(module for module in layer.modules() if hasattr(module, "weight"))
        layer.router = nn.Linear(model.config.hidden_size, 1, bias=False, **like(neighbour))
        layer.capacity = capacity
        layer.__class__ = _routed(type(layer))


def _routed(kind: Any) -> type[nn.Module]:
    """A class of layers that compute x + weight * f(x) where a token is chosen, x where it is not (equation 1).

    f is what the layer adds to its input. A class of its own is what checkpointing takes in as a whole.
    Source: transformers 5.24, modeling_layers.py, GradientCheckpointingLayer.
    """
    names = list(inspect.signature(kind.forward).parameters)[2:]

    class Routed(kind):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # (b, s, hidden)
            weights = self.router(hidden_states)  # (b, s, 1)
            places = _chosen(weights, self.capacity)  # (b, k)
            index = places.unsqueeze(-1)
            some = hidden_states.gather(1, index.expand(-1, -1, hidden_states.shape[-1]))
            given = _of_some(dict(zip(names, args, strict=False)) | kwargs, places)
            outputs = super().forward(some, **given)
            output = outputs[0] if isinstance(outputs, tuple) else outputs
            update = (output - some) * weights.gather(1, index)
            summed = hidden_states.scatter_add(1, index.expand_as(update), update.to(hidden_states.dtype))
            return (summed, *outputs[1:]) if isinstance(outputs, tuple) else summed

    return Routed


def _chosen(weights: torch.Tensor, capacity: float) -> torch.Tensor:
    """Where the tokens that weigh most stand in each row, in their order: attention stays causal."""
    count = tokens_through(weights.shape[1], capacity)
    unordered = weights.detach().squeeze(-1).topk(count, dim=1, sorted=False).indices
    return unordered.sort(dim=1).values


def _of_some(given: dict[str, Any], places: torch.Tensor) -> dict[str, Any]:
    """What a layer is given beside its input, of the chosen tokens alone.

    Their positions are not: layers read them only to see whether a row has several texts in it, each of which begins
    at 0, and gaps between them would look so.
    """
    taken = dict(given)
    if given.get("attention_mask") is not None:
        taken["attention_mask"] = _of_mask(given["attention_mask"], places)
    if given.get("position_embeddings") is not None:
        taken["position_embeddings"] = tuple(_of_positions(x, places) for x in given["position_embeddings"])
    if given.get("alibi") is not None:
        taken["alibi"] = _of_alibi(given["alibi"], places)
    if "position_ids" in given:
        taken["position_ids"] = None
    return taken


def _of_mask(mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:  # (b, heads, s, s) -> (b, heads, k, k)
    b, k = places.shape
    if mask.dim() == 2:  # which tokens are padding, as the flash-attn library is told
        return mask.gather(1, places)
    heads, keys = mask.shape[1], mask.shape[3]
    rows = mask.expand(b, -1, -1, -1).gather(2, places.view(b, 1, k, 1).expand(b, heads, k, keys))
    return rows.gather(3, places.view(b, 1, 1, k).expand(b, heads, k, k))


def _of_positions(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:  # (1 or b, s, width) -> (b, k, width)
    b, k = places.shape
    return x.expand(b, -1, -1).gather(1, places.unsqueeze(-1).expand(b, k, x.shape[-1]))


def _of_alibi(alibi: torch.Tensor, places: torch.Tensor) -> torch.Tensor:  # of all heads (..., s) -> (..., k)
    b, k = places.shape
    by_row = alibi.view(b, -1, 1, alibi.shape[-1])
    taken = by_row.gather(3, places.view(b, 1, 1, k).expand(b, by_row.shape[1], 1, k))
    return taken.view(*alibi.shape[:-1], k)
