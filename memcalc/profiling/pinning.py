"""Which attention kernel a run takes, and how one is pinned, on a real device."""

# ruff: noqa: SLF001 - torch's own choice has a private name

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from memcalc import kernels
from memcalc.workload import Workload

BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}

_PINNED = {"sdpa-flash": "flash", "efficient": "efficient", "cudnn": "cudnn", "math": "math"}
_NAMES = {backend: name for name, backend in BACKENDS.items()}
_NODES = {  # autograd's names of the kernels: torch 2.13, tools/autograd/derivatives.yaml
    "ScaledDotProductFlashAttention": "flash",
    "ScaledDotProductEfficientAttention": "efficient",
    "ScaledDotProductCudnnAttention": "cudnn",
    "ScaledDotProductFusedAttentionOverrideable": "overrideable",
}
_IMPLEMENTATIONS = {"flash_attention_2": "flash"}


class Kernels:
    """The kernels that sdpa took, in the order of their first use."""

    def __init__(self) -> None:
        self.taken: dict[str, None] = {}

    def note(self, output: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Note the kernel of one call: autograd's node names it; without one torch is asked what it would take."""
        name = _of_node(output.grad_fn) if output.grad_fn is not None else choice(*args, **kwargs)
        if name is not None:
            self.taken[name] = None

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

    kernels_taken = Kernels()
    pinned = _PINNED.get(workload.attention)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("torch.nn.functional.scaled_dot_product_attention", _noting(kernels_taken)))
        if pinned is not None:
            stack.enter_context(sdpa_kernel(getattr(SDPBackend, BACKENDS[pinned])))
            if not kernels.takes_gqa(pinned):  # the loop's author repeats K and V before the call
                gqa = "transformers.integrations.sdpa_attention.use_gqa_in_sdpa"
                stack.enter_context(mock.patch(gqa, return_value=False))
        yield kernels_taken


def choice(query: torch.Tensor, *args: Any, **kwargs: Any) -> str | None:
    """The kernel that torch would take for these arguments of scaled_dot_product_attention.

    None where the device has no such choice, or autocast will give the kernel another dtype than it sees here.
    """
    from torch.nn.attention import SDPBackend

    kind = query.device.type
    if torch.is_autocast_enabled(kind) and query.dtype != torch.get_autocast_dtype(kind):
        return None
    try:
        name = SDPBackend(torch._fused_sdp_choice(query, *args, **kwargs)).name
    except NotImplementedError:
        return None
    return _NAMES.get(name, name.lower())


def _noting(taken: Kernels) -> Any:
    attend = torch.nn.functional.scaled_dot_product_attention

    def noting(*args: Any, **kwargs: Any) -> torch.Tensor:
        output = attend(*args, **kwargs)
        taken.note(output, *args, **kwargs)
        return output

    return noting


def _of_node(node: Any) -> str:
    """flash slices what it padded; math is a sum of other operators."""
    if node.name().startswith("SliceBackward"):
        node = node.next_functions[0][0]
    return next((kernel for name, kernel in _NODES.items() if node.name().startswith(name)), "math")
