"""What the tracer must know of an operator, found out once for each."""

from typing import Any, NamedTuple

import torch

from memcalc.tracing import shadows
from memcalc.tracing.answers import is_answerable
from memcalc.tracing.private_api import is_composite
from memcalc.tracing.standins import StandIn

aten = torch.ops.aten

_GEMMS = frozenset(
    {
        aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.addmv.default,
        aten.mv.default, aten.dot.default, aten._addmm_activation.default, aten._int_mm.default,
    }
)  # fmt: skip
_INDEXING = frozenset({aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor})
_CONSTANTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)  # python numbers made tensors
_NOBODY_READS = (aten.uniform_.default, aten.normal_.default, aten.zero_.default)  # of an adapter made on the host
_PLAIN = StandIn()


class Operator(NamedTuple):
    """An operator as the tracer sees it."""

    name: str
    composite: bool  # runs as the sum of others, on CUDA too
    views: bool  # its result shares its input's storage
    multiplies: bool  # by cuBLAS
    adds: bool  # as autograd adds gradients
    indexes: bool
    constant: bool
    fills: bool
    moves: bool
    shaped_by_data: bool
    standin: StandIn
    answerable: bool  # its result's look follows from its arguments'


def describe(func: Any, standin: StandIn | None) -> Operator:
    """Find out about an operator."""
    return Operator(
        name=func._schema.name.partition("::")[2],
        composite=is_composite(func),
        views=bool(func.is_view),
        multiplies=func in _GEMMS,
        adds=func is aten.add.Tensor,
        indexes=func in _INDEXING,
        constant=func in _CONSTANTS,
        fills=func in _NOBODY_READS,
        moves=func is aten._to_copy.default,
        shaped_by_data=func in shadows.SHAPED_BY_DATA,
        standin=_PLAIN if standin is None else standin,
        answerable=is_answerable(func),
    )


def without_masks(args: Any, device: str) -> Any:
    """The arguments of an indexing operator with the places of a mask's true elements in the mask's stead.

    Kernels look for them first (PyTorch, aten/src/ATen/native/IndexingUtils.h, expandTensors).
    """
    if not any(_is_mask(index) and index.device.type == device for index in args[1]):
        return args
    indices: list[torch.Tensor | None] = []
    for index in args[1]:
        indices += index.nonzero().unbind(1) if _is_mask(index) else (index,)
    return args[0], indices, *args[2:]


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements fill its storage without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((st, si) for si, st in zip(tensor.shape, tensor.stride(), strict=True) if si != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def why_not(func: Any, error: NotImplementedError) -> str:
    """Why an operator does not run on meta, in one line: it has no kernel there, or it asks for values."""
    why = "reads the values of a tensor" if "no data" in str(error) else "has no meta kernel"
    return (
        f"the step uses {func._schema.name}, which {why}: memcalc profile runs it with real tensors, "
        "on --device cpu where there is no GPU"
    )
