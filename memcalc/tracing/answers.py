"""What a result on meta looks like depends on what its inputs look like: a kernel is asked once for each kind.

torch writes many meta kernels in slow Python, and a model's layers ask them the same again and again.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch


class _Look(NamedTuple):
    """All that a tensor on meta is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


_UNASKED = object()


class Answers:
    """The looks of results, by operator and the looks of its arguments."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def ask(self, func: Any, kernel: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The kernel's result, or a new tensor that looks like the one before."""
        positional, named = _looks(args), _looks(kwargs.values())
        if positional is None or named is None:
            return kernel(*args, **kwargs)
        key = (func, positional, tuple(kwargs), named)
        known = self._known.get(key, _UNASKED)
        if known is _UNASKED:
            out = kernel(*args, **kwargs)
            self._known[key] = _look(out, args)
            return out
        if known is None:
            return kernel(*args, **kwargs)
        return torch.empty_strided(known.shape, known.stride, dtype=known.dtype, device="meta")


def is_answerable(func: Any) -> bool:
    """Whether an operator of torch's makes one new tensor, and changes nothing."""
    schema = func._schema
    if func.namespace != "aten" or schema.is_mutable or func.is_view or len(schema.returns) != 1:
        return False
    return str(schema.returns[0].type) == "Tensor" and schema.returns[0].alias_info is None


def _looks(values: Iterable[Any]) -> tuple[Any, ...] | None:
    """What tells one call from another; None where a tensor says more than its look.

    A tensor without dimensions may stand for a Python number, which counts for less where dtypes meet.
    """
    found: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            dtype = value.dtype
            if not value.is_meta or not value.dim() or dtype.is_complex or value.is_sparse:
                return None
            found.append((value.shape, value.stride(), dtype))
        elif isinstance(value, list | tuple):
            inner = _looks(value)
            if inner is None:
                return None
            found.append(inner)
        else:
            found.append((value.__class__, value))
    return tuple(found)


def _look(out: Any, args: Any) -> _Look | None:
    """How a result looks, if another tensor can be made to look so: it is no view of an argument, nor of anything."""
    if not isinstance(out, torch.Tensor) or not out.is_meta or out.dtype.is_complex or out.is_sparse:
        return None
    storage = out.untyped_storage()
    if any(isinstance(value, torch.Tensor) and value.untyped_storage()._cdata == storage._cdata for value in args):
        return None
    look = _Look(tuple(out.shape), out.stride(), out.dtype)
    again = torch.empty_strided(look.shape, look.stride, dtype=look.dtype, device="meta")
    return look if again.untyped_storage().nbytes() == storage.nbytes() and not out.storage_offset() else None
