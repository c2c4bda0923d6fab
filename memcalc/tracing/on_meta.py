"""A user's own code, written for "cuda", runs on meta: plain torch, accelerate, and transformers' Trainer."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_META = torch.device("meta")
_ANSWERS = {  # what asks for a GPU that is not there
    "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
    "torch.cuda.set_device": lambda device: None,
    "transformers.training_args.is_torch_bf16_gpu_available": lambda *args: True,
}


class CudaIsMeta(TorchFunctionMode):
    """While it is active, every call that names a CUDA device means the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0].to(_META)
        if func is torch.device:  # a name may stay a name: accelerate wants to read "cuda"
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_moved, args), **tree_map(_moved, kwargs or {}))


class HostIsMeta(CudaIsMeta):
    """While it is active, what is copied to the host stays where it is, too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[1:] == ("cpu",):
            return args[0]
        return super().__torch_function__(func, types, args, kwargs)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _META if value.type == "cuda" else value
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return _META
    return value


@contextlib.contextmanager
def cuda_is_meta() -> Iterator[None]:
    """The mode, and around it those who ask whether there is a GPU, as far as they are imported."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"ACCELERATE_TORCH_DEVICE": "cuda"}))
        for target, answer in _ANSWERS.items():
            if target.rpartition(".")[0] in sys.modules:
                stack.enter_context(mock.patch(target, answer))
        stack.enter_context(CudaIsMeta())
        yield
