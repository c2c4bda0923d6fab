"""Everything that makes code on the meta device take the paths that it takes on CUDA."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from memcalc import kernels
from memcalc.tracing import attention, flash_library, standins
from memcalc.workload import Workload


@contextlib.contextmanager
def cuda_like(chooser: attention.Chooser, workload: Workload) -> Iterator[None]:
    """Install all of it inside a `with` block, and take it away again."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(standins.installed(attention.composites(chooser)))
        for target, replacement in _patches(chooser).items():
            stack.enter_context(mock.patch(target, replacement))
        if workload.quant != "none":
            stack.enter_context(_fresh_quantization_maps())
        if workload.attention == "flash":
            stack.enter_context(flash_library.standing_in())
        yield


def _patches(chooser: attention.Chooser) -> dict[str, Callable[..., Any]]:
    """Names to replace: the devices that foreach and fused optimizers accept, GQA where a pinned kernel has none."""
    foreach, fused = (lambda: ["cuda", "meta"]), (lambda: ["cuda", "cpu", "meta"])
    patches: dict[str, Callable[..., Any]] = {}
    for module in ("torch.utils._foreach_utils", "torch.optim.optimizer"):
        patches[f"{module}._get_foreach_kernels_supported_devices"] = foreach
        patches[f"{module}._get_fused_kernels_supported_devices"] = fused
    if chooser.pinned and not kernels.takes_gqa(chooser.pinned):  # the loop's author repeats K and V before the call
        patches["transformers.integrations.sdpa_attention.use_gqa_in_sdpa"] = lambda *_: False
    return patches


@contextlib.contextmanager
def _fresh_quantization_maps() -> Iterator[None]:
    """No 8-bit map inside a `with` block: bitsandbytes keeps it, so that only a process's first trace would make it."""
    import bitsandbytes.functional

    with mock.patch.dict(bitsandbytes.functional.name2qmap, clear=True):
        yield
