"""Autocast: some ops cast their inputs down, some up; weights' casts are cached until the region ends.

Source: PyTorch 2.13, aten/src/ATen/autocast_mode.cpp (cached_cast) and autocast_mode.h (the lists of ops).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from memcalc.formats import HALF
from memcalc.tape.tape import Array, Leaf, Tensor, like, record, tape


class Region:
    """One outermost autocast region and its cache of weight copies."""

    __slots__ = ("cache", "dtype")

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.cache: dict[Leaf, Tensor] = {}


@contextmanager
def autocast(dtype: str) -> Iterator[None]:
    """Autocast to `dtype` ("none": nothing changes). The cached copies die on exit."""
    outer = tape.autocast
    if dtype != "none":
        tape.autocast = Region(dtype)
    try:
        yield
    finally:
        tape.autocast = outer


def lower(x: Tensor) -> Tensor:
    """x in autocast's dtype, for products and attention; x itself outside autocast.

    The copy of a trained fp32 leaf is made once a region.
    """
    region = tape.autocast
    dtype = x.data.dtype
    if region is None or dtype == region.dtype or (dtype != "fp32" and dtype not in HALF):
        return x
    assert isinstance(region, Region)
    if isinstance(x.node, Leaf) and dtype == "fp32" and not x.data.is_view:
        cached = region.cache.get(x.node)
        if cached is None:
            cached = region.cache[x.node] = _cast(x, region.dtype)
        return cached
    return _cast(x, region.dtype)


def upper(x: Tensor) -> Tensor:
    """x in fp32, for ops that autocast keeps exact (pow, rsqrt, norms, losses); x itself outside autocast."""
    if tape.autocast is None or x.data.dtype not in HALF:
        return x
    return _cast(x, "fp32")


def _cast(x: Tensor, dtype: str) -> Tensor:
    before = x.data.dtype
    of_a_weight = not x.data.is_view and tape.timeline.categories[x.data.storage.row] in ("weights", "adapter")

    def backward(g: Array) -> list[Array]:
        return [like(g, "to", before)]

    return record(like(x.data, "to", dtype, "workspace" if of_a_weight else ""), (x,), backward)
