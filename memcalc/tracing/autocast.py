"""CUDA's autocast on the meta device: python kernels at an autocast key that torch leaves free.

There is no autocast for meta, and CUDA's kernels cast CUDA tensors only. A kernel here casts, excludes the
key and calls the operator again; it sits above autograd, so autograd saves the casts, and it also catches
operators called from C++ composites. Which operators do what is read from the installed torch's own header.

Source: aten/src/ATen/autocast_mode.h and .cpp (cached_cast, set_opt_dtype, prioritize).
"""

import functools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from memcalc.tracing import recurrent
from memcalc.tracing.place import Place
from memcalc.tracing.private_api import AUTOCAST_KEY, KeySwitch, below_key, fallback_to_next

_LISTS = {
    "lower": "AT_FORALL_LOWER_PRECISION_FP",
    "fp32": "AT_FORALL_FP32",
    "fp32_set_opt_dtype": "AT_FORALL_FP32_SET_OPT_DTYPE",
    "promote": "AT_FORALL_PROMOTE",
}


@dataclass
class State:
    """Autocast of the one thread that traces, as torch keeps it per device."""

    enabled: bool = False
    dtype: torch.dtype = torch.float16
    depth: int = 0
    cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)  # by id of the weight, kept alive
    place: Place | None = None
    running: int = 0  # kernels of ours, one inside the other


state = State()


def policies() -> dict[str, list[str]]:
    """Operators ("add", "sum.dim_IntList") by policy, from the installed torch's header."""
    header = (Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h").read_text()
    found = {}
    for policy, macro in _LISTS.items():
        body = re.search(rf"#define {macro}\(_\)((?:.*\\\n)*.*\n)", header)
        assert body is not None, f"no {macro} in autocast_mode.h"
        entries = re.findall(r"_\((\w+)(?:, (\w+))?\)", body[1])
        found[policy] = [f"{name}.{overload}" if overload else name for name, overload in entries]
    return found


def _eligible(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta and value.is_floating_point() and value.dtype.itemsize < 8


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in another dtype; copies of leaves that want a gradient are kept until autocast ends."""
    if not _eligible(value) or value.dtype == dtype:
        return value
    leaf = value.is_leaf and not value._is_view()  # a weight, or the input that a reentrant checkpoint has detached
    kept = leaf and value.requires_grad and value.dtype == torch.float32 and dtype == state.dtype
    if kept and id(value) in state.cache:
        return state.cache[id(value)][1]
    if leaf and isinstance(value, nn.Parameter) and state.place is not None:
        with state.place.category("workspace"):
            copy = value.to(dtype)
    else:
        copy = value.to(dtype)
    if kept:
        state.cache[id(value)] = (value, copy)
    return copy


def _tensors_to(dtype: torch.dtype, args: Any, kwargs: Any) -> tuple[Any, Any]:
    cast = functools.partial(_cast, dtype=dtype)
    return tree_map_only(torch.Tensor, cast, args), tree_map_only(torch.Tensor, cast, kwargs)


def _lower(op: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs = _tensors_to(state.dtype, args, kwargs)
    return op(*args, **kwargs)


def _fp32(op: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs = _tensors_to(torch.float32, args, kwargs)
    return op(*args, **kwargs)


def _fp32_set_opt_dtype(op: Any, args: Any, kwargs: Any) -> Any:
    """The operator computes in fp32 itself, unless the caller named a dtype."""
    at = [argument.name for argument in op._schema.arguments].index("dtype")
    given = args[at] if at < len(args) else kwargs.get("dtype")
    if given is None and _eligible(args[0]):
        args, kwargs = args[:at], {**kwargs, "dtype": torch.float32}
    return op(*args, **kwargs)


def _promote(op: Any, args: Any, kwargs: Any) -> Any:
    """To the widest dtype among the inputs."""
    leaves: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, leaves.append, (args, kwargs))
    wide = any(_eligible(leaf) and leaf.dtype == torch.float32 for leaf in leaves)
    args, kwargs = _tensors_to(torch.float32 if wide else state.dtype, args, kwargs)
    return op(*args, **kwargs)


def _norm(op: Any, args: Any, kwargs: Any) -> Any:
    """Norm with an appended dtype (fp32_append_dtype)."""
    if not _eligible(args[0]):
        return op(*args, **kwargs)
    with_dtype = torch.ops.aten.norm.ScalarOpt_dim_dtype if len(args) > 2 else torch.ops.aten.norm.ScalarOpt_dtype
    return with_dtype(*args, **kwargs, dtype=torch.float32)


def _recurrent(op: Any, args: Any, kwargs: Any) -> Any:
    """fp16, whatever autocast's dtype; weights are copied into a block of their own, and that is not kept.

    Source: aten/src/ATen/cudnn/AutocastRNN.cpp, _cudnn_rnn_cast_reflatten.
    """
    x, weights, each, block, hx, cx, *rest = args
    if _eligible(weights[0]) and weights[0].dtype != torch.float16:
        with nullcontext() if state.place is None else state.place.category("workspace"):
            block, weights = recurrent.in_half(weights, recurrent.weight_count(x, rest))
    x, hx, cx = (_cast(one, torch.float16) for one in (x, hx, cx))
    return op(x, weights, each, block, hx, cx, *rest, **kwargs)


_POLICIES = {"lower": _lower, "fp32": _fp32, "fp32_set_opt_dtype": _fp32_set_opt_dtype, "promote": _promote}


def within_composites() -> AbstractContextManager[object]:
    """A context in which operators meet autocast that a composite consists of, as they do where torch takes it apart:
    a recorder sees it whole, below autocast's key. Nothing, where a kernel of autocast's called it.
    """
    return KeySwitch(AUTOCAST_KEY, included=True) if state.enabled and not state.running else nullcontext()


@functools.cache
def register() -> tuple[torch.library.Library, ...]:
    """Put the kernels at the key, once a process: nothing dispatches there unless autocast is on."""
    library = torch.library.Library("aten", "IMPL")
    for policy, names in policies().items():
        for name in names:
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
            if op is not None:
                library.impl(op, _kernel(_POLICIES[policy], op), AUTOCAST_KEY)
    for overload in ("Scalar", "ScalarOpt_dim"):
        op = getattr(torch.ops.aten.norm, overload)
        library.impl(op, _kernel(_norm, op), AUTOCAST_KEY)
    rnn = torch.ops.aten._cudnn_rnn.default
    library.impl(rnn, _kernel(_recurrent, rnn), AUTOCAST_KEY)
    return library, fallback_to_next(AUTOCAST_KEY)


def _kernel(policy: Callable[[Any, Any, Any], Any], op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        state.running += 1
        try:
            with below_key(AUTOCAST_KEY):
                return policy(op, args, kwargs)
        finally:
            state.running -= 1

    return kernel
