"""What hypothesis draws from: layouts, workloads' options, footprints, JSON of any kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from memcalc.footprint import LEVELS, Block, Footprint, Phase
from memcalc.optimizers import OPTIMIZERS
from memcalc.options import Option, options_of
from memcalc.timeline import CATEGORIES, PHASES, Timeline

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


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def anything() -> st.SearchStrategy[object]:
    """What a Python caller or a JSON file may give as an option's value."""
    words = st.sampled_from(["none", "bf16", "true", "same,empty", "all-linear", "24GiB", "-1", "nan", "auto", ""])
    return JSON | words | st.binary(max_size=4) | st.tuples(st.integers(), st.text(max_size=3))


def option_values(cls: type) -> dict[str, st.SearchStrategy[object]]:
    """By field, values that an option takes on its own; together they may contradict each other."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return {name: _values(name, described, defaults[name]) for name, described in options_of(cls).items()}


def _values(name: str, described: Option, default: object) -> st.SearchStrategy[object]:
    if described.choices:
        return st.sampled_from(described.choices)
    if name in _WORDS:
        return st.sampled_from(_WORDS[name])
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(1, 64)
    if isinstance(default, float):
        return st.floats(0, 4)
    assert default is None or isinstance(default, tuple), f"no values for {name}: add a row to _WORDS"
    return st.none() | st.floats(0.1, 4) if default is None else st.just(default)


_WORDS: Final[Mapping[str, Sequence[object]]] = {
    "quant": ["none", "nf4", "fp4", "int8", "gguf:q4_k"],
    "optimizer": sorted(name for name, row in OPTIMIZERS.items() if not row.projects),  # that is a method's
    "alloc_conf": ["", "expandable_segments:True", "max_split_size_mb:64", "roundup_power2_divisions:8"],
    "history": [(), ("same",), ("16", "empty"), ("same", "40")],
    "target": [(), ("all-linear",), ("q_proj", "mlp.up_proj")],
    "lora_dropout": [0.0, 0.1],
    "act_fn": ["relu", "gelu", "silu"],
    "init_lora_weights": ["default", "gaussian", "pissa", "pissa_niter_4"],
}


def footprints() -> st.SearchStrategy[Footprint]:
    """Footprints of any producer, whether or not their figures make sense together."""
    level = st.none() | st.integers(0, 2**50)
    texts = st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3)
    return st.builds(
        Footprint,
        producer=st.sampled_from(["estimate", "trace", "profile", "published"]),
        workload=st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6) | st.none(), max_size=3),
        **dict.fromkeys(LEVELS, level),
        peak_phase=st.none() | st.sampled_from(PHASES),
        at_peak=st.none() | st.fixed_dictionaries(dict.fromkeys(CATEGORIES, st.integers(0, 2**50))),
        phases=st.lists(st.builds(Phase, st.sampled_from(PHASES), level, level, level), max_size=4).map(tuple),
        unavailable=texts,
        versions=texts,
        warnings=st.lists(st.text(max_size=6), max_size=2).map(tuple),
        seconds=st.none() | st.floats(0, 1e6),
        largest=st.lists(
            st.builds(Block, st.integers(1, 2**50), st.sampled_from(CATEGORIES), st.text(max_size=6)), max_size=3
        ).map(tuple),
        outcome=st.none() | st.sampled_from(["ok", "out_of_memory", "crashed", "timeout"]),
        measured=st.dictionaries(st.text(max_size=6), st.integers(), max_size=2),
    )


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Up to 20 blocks born and freed in any order, with phases and emptied caches between."""
    timeline = Timeline()
    alive: list[int] = []
    for kind in draw(st.lists(st.sampled_from(["birth", "birth", "death", "phase", "empty"]), max_size=40)):
        if kind == "birth":
            size = draw(st.integers(1, 4 * 2**20) | st.integers(1, 2000))
            alive.append(
                timeline.birth(size, draw(st.sampled_from(CATEGORIES)), draw(st.sampled_from(["", "m.0"])), "op")
            )
        elif kind == "death" and alive:
            timeline.death(alive.pop(draw(st.integers(0, len(alive) - 1))))
        elif kind == "phase":
            timeline.phase(draw(st.sampled_from(PHASES)))
        elif kind == "empty":
            timeline.empty_cache()
    return timeline
