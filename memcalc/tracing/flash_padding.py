"""What flash-attn does around its kernel where rows are padded: tokens out of their rows, and back.

Source: flash-attn 2, bert_padding.py.
"""

from math import prod
from typing import Any

import torch
from torch.nn.functional import pad


class _Picked(torch.autograd.Function):
    """Some of the first dimension's entries. Saves: indices. Backward allocates: zeros of the input's size."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(indices)
        ctx.entries, inner = x.shape[0], x.shape[1:]
        at = indices.unsqueeze(1).expand(-1, prod(inner))
        return torch.gather(x.reshape(ctx.entries, -1), 0, at).reshape(-1, *inner)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        grad = grads[0].reshape(grads[0].shape[0], -1)
        out = torch.zeros(ctx.entries, grad.shape[1], dtype=grad.dtype, device=grad.device)
        out.scatter_(0, indices.unsqueeze(1).expand(-1, grad.shape[1]), grad)
        return out.reshape(ctx.entries, *grads[0].shape[1:]), None


class _Placed(torch.autograd.Function):
    """Entries at their places among zeros. Saves: indices. Backward allocates: the entries' gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, indices: torch.Tensor, entries: int) -> torch.Tensor:
        ctx.save_for_backward(indices)
        out = torch.zeros(entries, *values.shape[1:], device=values.device, dtype=values.dtype)
        out[indices] = values
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        return grads[0][indices], None, None


def index_first_axis(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """(tokens, …) -> (chosen tokens, …)."""
    picked: torch.Tensor = _Picked.apply(x, indices)
    return picked


def unpad_input(x: torch.Tensor, attention_mask: torch.Tensor, unused_mask: torch.Tensor | None = None) -> Any:
    """(b, s, …) -> the real tokens, where they stood, the sequences' bounds, the longest, all lengths in use."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    used = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = torch.nonzero(attention_mask.flatten(), as_tuple=False).flatten()
    longest = lengths.max().item()
    bounds = pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    return index_first_axis(x.reshape(-1, *x.shape[2:]), indices), indices, bounds, longest, used


def pad_input(x: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """The real tokens -> (b, s, …) with zeros where there are none."""
    placed: torch.Tensor = _Placed.apply(x, indices, batch * seqlen)
    return placed.view(batch, seqlen, *x.shape[1:])
