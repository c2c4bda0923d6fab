"""Which attention kernel a run takes, and how one is pinned, on a real device."""

# ruff: noqa: SLF001 - torch's own choice has a private name

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from memcalc import kernels
from memcalc.workload import Workload

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}
BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
_NAMES = {backend: name for name, backend in BACKENDS.items()}
_IMPLEMENTATIONS = {"flash_attention_2": "flash"}


class Kernels:
    """The kernels that sdpa took, in the order of their first use."""

    def __init__(self) -> None:
        self.taken: dict[str, None] = {}

    def name(self, model: Any) -> str:
        """What stands in `workload.attention_kernel`."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        implementation: str = base.config._attn_implementation
        if implementation != "sdpa":
            return _IMPLEMENTATIONS.get(implementation, implementation)
        return "+".join(self.taken) or "sdpa"


@contextlib.contextmanager
def attention(workload: Workload) -> Iterator[Kernels]:
    """Pin the workload's kernel inside a `with` block, and note which kernels are taken."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    taken = Kernels()
    pinned = _PINNED.get(workload.attention)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("torch.nn.functional.scaled_dot_product_attention", _noting(taken)))
        if pinned is not None:
            stack.enter_context(sdpa_kernel(getattr(SDPBackend, BACKENDS[pinned])))
            if not kernels.takes_gqa(pinned):  # the loop's author repeats K and V before the call
                gqa = "transformers.integrations.sdpa_attention.use_gqa_in_sdpa"
                stack.enter_context(mock.patch(gqa, lambda *_: False))
        yield taken


def choice(*args: Any, **kwargs: Any) -> str:
    """The kernel that torch would take for these arguments of scaled_dot_product_attention."""
    from torch.nn.attention import SDPBackend

    name = SDPBackend(torch._fused_sdp_choice(*args, **kwargs)).name
    return _NAMES.get(name, name.lower())


def _noting(taken: Kernels) -> Any:
    attend = torch.nn.functional.scaled_dot_product_attention

    def noting(*args: Any, **kwargs: Any) -> torch.Tensor:
        taken.taken[choice(*args, **kwargs)] = None
        return attend(*args, **kwargs)

    return noting
