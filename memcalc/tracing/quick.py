"""Results of common operators on meta without their kernels there, which torch writes in slow Python.

Only the plain cases: dense, contiguous tensors of one dtype. Anything else is answered with None, and the real kernel
runs. What a result looks like is the same either way.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch

aten = torch.ops.aten

Quick = Callable[..., torch.Tensor | None]


def _is_plain(x: torch.Tensor) -> bool:
    """Whether a tensor lies in memory as one that was just made; a dimension of one may have any stride."""
    if not x.is_contiguous() or not x.is_meta or not x.is_floating_point():
        return False
    if 1 not in x.shape:
        return True
    expected = 1
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if stride != expected:
            return False
        expected *= size
    return True


def _contiguous(shape: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _like_first(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | None:
    """One input, an output like it."""
    if kwargs or not _is_plain(x):
        return None
    return _contiguous(x.shape, x.dtype)


def _element_wise(x: torch.Tensor, y: Any) -> torch.Tensor | None:
    """Two inputs: one has the output's shape, the other the same or a smaller one, or is a number."""
    if not _is_plain(x):
        return None
    if not isinstance(y, torch.Tensor):
        return _contiguous(x.shape, x.dtype) if type(y) in (float, int) else None
    if not _is_plain(y):
        return None
    dtype = x.dtype
    if y.dtype != dtype:
        if not x.dim() or not y.dim():  # a number's dtype counts for less
            return None
        dtype = torch.promote_types(dtype, y.dtype)
    if x.shape == y.shape or _stretches(y.shape, x.shape):
        return _contiguous(x.shape, dtype)
    return _contiguous(y.shape, dtype) if _stretches(x.shape, y.shape) else None


def _stretches(small: torch.Size, large: torch.Size) -> bool:
    """Whether a shape is broadcast to a larger one that it does not change; a matter of doubt is none."""
    if len(small) > len(large) or prod(small) >= prod(large):
        return False
    return all(s in (1, n) for s, n in zip(reversed(small), reversed(large), strict=False))


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
    """(…, m, k) times (…, k, n)."""
    if not x.is_meta or x.dtype != y.dtype or x.shape[-1] != y.shape[-2] or x.shape[:-2] != y.shape[:-2]:
        return None
    return _contiguous((*x.shape[:-1], y.shape[-1]), x.dtype)


def _filled(x: torch.Tensor, **kwargs: Any) -> torch.Tensor | None:
    """zeros_like and empty_like, with nothing else asked for."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    if given.keys() - {"pin_memory", "memory_format"} or given.get("pin_memory") or not _is_plain(x):
        return None
    if given.get("memory_format", torch.preserve_format) != torch.preserve_format:
        return None
    return _contiguous(x.shape, x.dtype)


def _mean(x: torch.Tensor, dims: Any = None, keepdim: bool = False, **kwargs: Any) -> torch.Tensor | None:
    """Over the last dimension, which stays as one."""
    if not keepdim or dims not in ([-1], [x.dim() - 1]) or kwargs:
        return None
    if not _is_plain(x):
        return None
    return _contiguous((*x.shape[:-1], 1), x.dtype)


QUICK: dict[Any, Quick] = {
    **dict.fromkeys((aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor), _element_wise),
    **dict.fromkeys((aten.mul.Scalar, aten.div.Scalar, aten.silu_backward.default), _element_wise),
    **dict.fromkeys(
        (
            aten.neg.default, aten.rsqrt.default, aten.silu.default, aten.pow.Tensor_Scalar, aten.sqrt.default,
            aten.sin.default, aten.cos.default, aten.tanh.default, aten.sigmoid.default, aten.abs.default,
            aten.exp.default, aten.gelu.default,
        ),
        _like_first,
    ),
    **dict.fromkeys((aten.mm.default, aten.bmm.default), _product),
    **dict.fromkeys((aten.zeros_like.default, aten.empty_like.default), _filled),
    aten.mean.dim: _mean,
}  # fmt: skip
