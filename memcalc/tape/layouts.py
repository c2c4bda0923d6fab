"""How the dims of an array lie in memory: shapes and strides, both in elements, as torch has them."""

from functools import lru_cache
from math import prod

from memcalc.formats import ITEMSIZE

Shape = tuple[int, ...]


@lru_cache(maxsize=4096)
def block_layout(shape: Shape, dtype: str, strides: Shape | None = None) -> tuple[int, Shape]:
    """Bytes and strides of a new block: contiguous, or with dims in the order of `strides`."""
    return prod(shape) * ITEMSIZE[dtype], contiguous_strides(shape) if strides is None else dense_strides(
        shape, strides
    )


@lru_cache(maxsize=4096)
def contiguous_strides(shape: Shape) -> Shape:
    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * max(shape[dim + 1], 1)
    return tuple(strides)


@lru_cache(maxsize=4096)
def dense_strides(shape: Shape, strides: Shape) -> Shape:
    """Strides of a new block whose dims lie in memory in the order of `strides`.

    Dims of stride 0 (expanded) and ties keep their logical order.
    Source: PyTorch 2.13, aten/src/ATen/TensorIterator.cpp, reorder_dimensions; ATen/EmptyTensor, infer_dense_strides.
    """
    if 0 in strides and any(size > 1 for size, stride in zip(shape, strides, strict=True) if stride == 0):
        return contiguous_strides(shape)
    order = sorted((dim for dim in range(len(shape)) if shape[dim] != 1), key=lambda dim: -strides[dim])
    result = [1] * len(shape)
    step = 1
    for dim in reversed(order):
        result[dim] = step
        step *= shape[dim]
    following = 1
    for dim in range(len(shape) - 1, -1, -1):
        if shape[dim] == 1:
            result[dim] = following
        following = result[dim] * shape[dim]
    return tuple(result)


@lru_cache(maxsize=4096)
def is_dense(shape: Shape, strides: Shape) -> bool:
    """Non-overlapping and dense: some order of the dims covers the block exactly; dims of size 1 do not count."""
    step = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != step:
            return False
        step *= size
    return True


@lru_cache(maxsize=4096)
def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Whether the dims lie in memory in logical order without gaps; dims of size 1 do not count."""
    step = 1
    for dim in range(len(shape) - 1, -1, -1):
        if shape[dim] != 1:
            if strides[dim] != step:
                return False
            step *= shape[dim]
    return True
