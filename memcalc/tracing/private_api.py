"""Everything private that we take from torch, in one place, with a self-test.

Verified with torch 2.13. `missing()` says in one line what another torch lacks.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memcalc.errors import NotModelled

aten = torch.ops.aten

AUTOCAST_KEY = "AutocastIPU"  # an autocast key without kernels of its own: free for ours


def in_backward() -> bool:
    """Whether an autograd engine is running on this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


def current_node() -> Any:
    """The autograd node whose backward runs now, or None."""
    return torch._C._current_autograd_node()


def next_sequence_number() -> int:
    """The number that the next autograd node of this thread will get; nodes are numbered as forward runs."""
    return int(torch._C._autograd._get_sequence_nr())


def use_counts(tensor: torch.Tensor) -> tuple[int, int]:
    """C++ references to a tensor and to its storage, those of the call itself included."""
    storage = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return int(tensor._use_count()), int(storage)  # type: ignore[attr-defined]


def has_kernel(op: Any, key: str) -> bool:
    """Whether an operator has a kernel registered for a dispatch key (aliases such as CompositeImplicit count)."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key))


def is_composite(op: Any) -> bool:
    """Whether an operator runs on a device only as the sum of other operators.

    Some (silu_backward, native_channel_shuffle) have a composite and native kernels too. Those of CUDA are
    not registered in a CPU build, CPU's are: ask for them (aten/src/ATen/native/native_functions.yaml).
    """
    return has_kernel(op, "CompositeImplicitAutograd") and not has_kernel(op, "CPU")


def fallback_to_next(key: str) -> torch.library.Library:
    """Let operators without a kernel at `key` pass through it; returns the handle that keeps this so."""
    library = torch.library.Library("_", "IMPL")
    library.fallback(torch.library.fallthrough_kernel, key)
    return library


class KeySwitch:
    """Dispatch to `key` for the calling thread, or not, inside a `with` block."""

    def __init__(self, key: str, included: bool) -> None:
        self.key, self.included = getattr(torch._C.DispatchKey, key), included

    def __enter__(self) -> None:
        self.before = (
            torch._C._dispatch_tls_is_dispatch_key_included(self.key),
            torch._C._dispatch_tls_is_dispatch_key_excluded(self.key),
        )
        self._set(self.included, not self.included)

    def __exit__(self, *error: object) -> None:
        self._set(*self.before)

    def _set(self, included: bool, excluded: bool) -> None:
        torch._C._dispatch_tls_set_dispatch_key_included(self.key, included)
        torch._C._dispatch_tls_set_dispatch_key_excluded(self.key, excluded)


def below_key(key: str) -> Any:
    """A context in which calls skip `key`."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)))


class _Accumulations(TorchDispatchMode):
    """Notes the use counts of gradients that the engine adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and in_backward():
            self.counts.append(use_counts(args[0]))
        return func(*args, **(kwargs or {}))


def last_reference_counts() -> tuple[int, int]:
    """`use_counts`, seen from a dispatch mode, of a gradient that only the engine's buffer holds."""
    leaf = torch.ones(2, device="meta", requires_grad=True)
    with _Accumulations() as mode:
        doubled = leaf * 2
        (doubled.sin().sum() + doubled.cos().sum()).backward()
    return mode.counts[-1]


def missing() -> str:
    """What this torch lacks of the above, in one line; empty where all is there and works."""
    needed = {
        "torch._C": (
            "_current_graph_task_id", "_current_autograd_node", "_storage_Use_Count",
            "_dispatch_has_kernel_for_dispatch_key", "_dispatch_tls_set_dispatch_key_included",
            "_dispatch_tls_set_dispatch_key_excluded", "_ExcludeDispatchKeyGuard",
        ),
        "torch._C._autograd": ("_get_sequence_nr",),
        "torch.Tensor": ("_use_count",),
        "torch.library.Library": ("fallback",),
        f"torch._C.DispatchKey.{AUTOCAST_KEY}": (),
    }  # fmt: skip
    lacking = []
    for path, names in needed.items():
        found: Any = torch
        for step in path.split(".")[1:]:
            found = getattr(found, step, None)
        lacking += [path] if found is None else [f"{path}.{name}" for name in names if not hasattr(found, name)]
    if not lacking and last_reference_counts() != (4, 2):
        lacking.append("reference counts of gradients as torch 2.13 has them")
    return ", ".join(lacking)


def check() -> None:
    """Raise NotModelled where this torch cannot be traced."""
    if lacking := missing():
        raise NotModelled(f"trace does not work with torch {torch.__version__}: it lacks {lacking}; use estimate")
