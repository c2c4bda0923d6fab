"""What hypothesis draws from: layouts, workloads' options, footprints, JSON of any kind."""

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    import torch

    from memcalc.tape.layouts import Shape


def shapes(most: int = 4) -> "st.SearchStrategy[Shape]":
    """Up to `most` dims of 1 to 6 entries."""
    return st.lists(st.integers(1, 6), max_size=most).map(tuple)


@st.composite
def views(draw: st.DrawFn, *, expanded: bool = True) -> "torch.Tensor":
    """A meta tensor seen through up to four views: permuted, narrowed, one entry selected, expanded."""
    import torch

    x = torch.empty(draw(shapes()), device="meta")
    kinds = ["permute", "narrow", "select", "unsqueeze", *(["expand"] if expanded else [])]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        rank = x.dim()
        if kind == "unsqueeze" and rank < 5:
            x = x.unsqueeze(draw(st.integers(0, rank)))
        elif not rank:
            continue
        elif kind == "permute":
            x = x.permute(draw(st.permutations(range(rank))))
        elif kind == "expand":
            times = draw(st.integers(1, 3))
            x = x.expand([times if size == 1 and draw(st.booleans()) else size for size in x.shape])
        else:
            dim = draw(st.integers(0, rank - 1))
            size = x.shape[dim]
            start = draw(st.integers(0, size - 1))
            x = x.select(dim, start) if kind == "select" else x.narrow(dim, start, draw(st.integers(1, size - start)))
    return x
