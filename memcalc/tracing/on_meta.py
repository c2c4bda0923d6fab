"""A user's own code, written for "cuda", runs on meta."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_META = torch.device("meta")


class CudaIsMeta(TorchFunctionMode):
    """While it is active, every call that names a CUDA device means the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0].to(_META)
        return func(*tree_map(_moved, args), **tree_map(_moved, kwargs))


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _META if value.type == "cuda" else value
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return _META
    return value


@contextlib.contextmanager
def cuda_is_meta() -> Iterator[None]:
    """The mode, and a GradScaler that does not disable itself for want of a GPU."""
    with CudaIsMeta(), mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False):
        yield
