"""Values of small tensors, of integers and booleans above all, which have none on the meta device.

transformers asks its masks questions ("are they all ones?") and builds others depending on the answer.
A shadow is the real CPU tensor beside such a meta tensor: every operator whose inputs all have one is
run on the shadows too. Views share memory with their base as the meta tensors do, in-place operators
write through, so nothing else has to be followed.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map_only

from memcalc.errors import NotModelled

aten = torch.ops.aten


class Limits(NamedTuple):
    """The most elements of a tensor whose values are kept."""

    whole: int  # of integers and booleans
    floating: int


LOADING = Limits(2**28, 1)  # adapters that pick single weights look at masks of whole matrices
STEP = Limits(2**23, 2**16)  # nobody asks larger masks in a step, they only feed attention

_FINITE = (aten.isnan.default, aten.isinf.default)  # of an unknown number: the run is a healthy one
_OVERWRITING = (aten.copy_.default, aten.fill_.Scalar, aten.zero_.default)
_UNKNOWN = ("empty", "new_empty", "rand", "normal", "bernoulli", "multinomial")  # operators whose results nobody knows
_OF_SHAPE = (aten.ones_like.default, aten.zeros_like.default, aten.full_like.default, aten.new_ones.default)
SHAPED_BY_DATA = frozenset(
    {
        aten.nonzero.default, aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default,
        aten.masked_select.default, aten.bincount.default, aten.repeat_interleave.Tensor,
    }
)  # fmt: skip


def get(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values of a tensor, where they are known."""
    if tensor.device.type != "meta":
        return tensor
    shadow: torch.Tensor | None = getattr(tensor, "_memcalc_shadow", None)
    return shadow


def follow(func: Any, args: Any, kwargs: Any, out: Any, limits: Limits) -> None:
    """Give the results of an operator their values, where they follow from known ones and are not too many."""
    if isinstance(out, torch.Tensor):
        if not _wanted(out, limits):
            return
        outputs: Any = [out]
    else:
        outputs = out if isinstance(out, tuple | list) else []
    wanted = [o for o in outputs if isinstance(o, torch.Tensor) and _wanted(o, limits)]
    if not wanted:
        return
    if func in _OVERWRITING and get(args[0]) is None and _is_whole(args[0]):
        args = (torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:])
    if func in _FINITE and get(args[0]) is None:
        values: Any = torch.zeros(wanted[0].shape, dtype=torch.bool)
    elif func in _OF_SHAPE and get(args[0]) is None:
        values = func(torch.empty(args[0].shape, dtype=wanted[0].dtype), *_on_cpu(args[1:]), **_on_cpu(kwargs))
    elif _any_unknown(args) or _any_unknown(kwargs.values()):
        if func._schema.is_mutable:
            for output in wanted:
                output._memcalc_shadow = None  # type: ignore[attr-defined]
        return
    elif func._schema.name.partition("::")[2].startswith(_UNKNOWN):
        return
    else:
        values = func(*_on_cpu(args), **_on_cpu(kwargs))
    for output, value in zip(outputs, [values] if isinstance(values, torch.Tensor) else values, strict=True):
        if isinstance(output, torch.Tensor) and _wanted(output, limits):
            output._memcalc_shadow = value  # type: ignore[attr-defined]


def answer(tensor: torch.Tensor) -> Any:
    """The number in a one-element tensor. Raises NotModelled where it depends on unknown data."""
    value = get(tensor)
    if value is None:
        raise NotModelled(
            f"the step asks for the value of a {str(tensor.dtype).removeprefix('torch.')} tensor, which has none "
            "without real data: use profile, on --device cpu where there is no GPU"
        )
    return value.item()


def shaped_by_data(func: Any, args: Any, kwargs: Any) -> Any:
    """Results of an operator whose shape depends on values: empty ones, with their values beside them.

    Raises NotModelled where these are not known.
    """
    if _any_unknown(args) or _any_unknown(kwargs.values()):
        name = func._schema.name.replace("aten::", "")
        raise NotModelled(
            f"the step's shapes depend on values ({name}), which there are none of without real data: "
            "use profile, on --device cpu where there is no GPU"
        )
    return tree_map_only(torch.Tensor, _empty_with, func(*_on_cpu(args), **_on_cpu(kwargs)))


def _empty_with(values: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(values, device="meta")
    empty._memcalc_shadow = values  # type: ignore[attr-defined]
    return empty


def _wanted(tensor: torch.Tensor, limits: Limits) -> bool:
    return tensor.is_meta and tensor.numel() <= (limits.floating if tensor.is_floating_point() else limits.whole)


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor is all of its storage: then what overwrites it decides all of it."""
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _any_unknown(values: Iterable[Any]) -> bool:
    """Whether an operator's arguments hold a tensor without values; they are flat, or lists of tensors."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if get(value) is None:
                return True
        elif isinstance(value, tuple | list) and _any_unknown(value):
            return True
    return False


def _on_cpu(values: Any) -> Any:
    values = tree_map_only(torch.Tensor, get, values)
    return tree_map_only(torch.device, lambda _: torch.device("cpu"), values)
