"""AdaLoRA's allocation of ranks: what it keeps of every trained number between steps, and what each step makes besides.

The functions have the locals of the code that they stand for, since locals decide lifetimes.
Source: peft 0.21.2, tuners/adalora/layer.py, RankAllocator; tuners/adalora/model.py, AdaLoraModel.update_and_allocate.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from memcalc.errors import InvalidWorkload
from memcalc.tape.tape import Array, like, new, on_cuda, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

Kept = dict[str, dict[str, Array]]  # by kind, by full name
_KINDS = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_PARTS = (".lora_A.default", ".lora_B.default", ".lora_E.default")


class Schedule(NamedTuple):
    """In which steps ranks are allotted: between the first ones and the last ones, in every so many-th."""

    total: int
    first: int
    last: int
    every: int


def update_and_allocate(m: "Builder", kept: Kept, schedule: Schedule, step: int, times: Callable[[str], int]) -> None:
    """After the optimizer's step of this number. `times`: how many of the whole model's tensors one stands for."""
    final = schedule.total - schedule.last
    if step > final:
        _mask_again(m)
        return
    if step < final:
        _update_importance(m, kept)
    elif not kept:
        raise InvalidWorkload(f"--total-step {schedule.total} leaves no step before ranks are final: peft fails")
    if step == final or (step > schedule.first and step % schedule.every == 0):
        _mask_to_budget(m, kept["exp_avg_ipt"], times)
    if step == final:
        kept.clear()
    tape.scope = ""


def _trained(m: "Builder") -> Iterator[tuple[str, str, str, Array]]:
    """Full name, module, part and array of what trains, in order of registration."""
    for name, x in m.parameters.items():
        if name.endswith(_PARTS):
            module, _, part = name.rpartition(".lora_")
            tape.scope = module
            yield name, module, part[0], x.data


def _update_importance(m: "Builder", kept: Kept) -> None:
    """update_ipt: sensitivity, its average, and the average of how far it is from that."""
    for name, _, _, p in _trained(m):
        for kind in _KINDS:
            if name not in kept.setdefault(kind, {}):
                kept[kind][name] = like(p, "zeros_like")
        ipt, average, uncertainty = (kept[kind] for kind in _KINDS)
        ipt[name] = _absolute(like(p, "mul"))
        average[name] = _smoothed(p)
        uncertainty[name] = _smoothed_distance(p)
        for kind in _KINDS:
            kept[kind][name].settle("optimizer_states")


def _absolute(x: Array) -> Array:
    return like(x, "abs")


def _smoothed(p: Array) -> Array:
    decayed, added = like(p, "mul"), like(p, "mul")
    total = like(p, "add")
    del decayed, added
    return total


def _smoothed_distance(p: Array) -> Array:
    decayed = like(p, "mul")
    distance = _absolute(like(p, "sub"))
    added = like(p, "mul")
    del distance
    total = like(p, "add")
    del decayed, added
    return total


def _mask_to_budget(m: "Builder", scores: dict[str, Array], times: Callable[[str], int]) -> None:
    """mask_to_budget: a score for every singular value, the threshold among all of them, and who is below it."""
    value_ipt: dict[str, Array] = {}
    vector_ipt: dict[str, list[Array]] = {}
    triplet_ipt: dict[str, Array] = {}
    for name, module, part, p in _trained(m):
        entry_ipt = like(scores[name], "mul")
        if part == "E":
            value_ipt[module] = entry_ipt
        else:
            rank = p.shape[0 if part == "A" else 1]
            vector_ipt.setdefault(module, []).append(new((rank,), p.dtype, "mean"))
    for module in vector_ipt:
        tape.scope = module
        rank, dtype = value_ipt[module].shape[0], value_ipt[module].dtype
        ipt_ab = new((rank, 2), dtype, "cat")
        summed = new((rank,), dtype, "sum")
        triplet_ipt[module] = new((rank,), dtype, "add")
        del summed
    tape.scope = ""
    _threshold(sum(rank.shape[0] * times(f"{module}.") for module, rank in triplet_ipt.items()), dtype)
    for module, score in triplet_ipt.items():
        tape.scope = module
        _mask(score.shape[0])
    del ipt_ab


def _threshold(count: int, dtype: str) -> None:
    """kthvalue of all scores."""
    every = new((count,), dtype, "cat")
    value, place = new((), dtype, "kthvalue"), new((), "int64", "kthvalue")
    del every, value, place


def _mask(rank: int) -> None:
    """Singular values below the threshold become zero; then the host reads which are not."""
    below = new((rank,), "bool", "le")
    del below
    below = new((rank,), "bool", "le")
    above = new((rank,), "bool", "bitwise_not")
    del below, above


def _mask_again(m: "Builder") -> None:
    """mask_using_rank_pattern: by what the host remembers."""
    for _, _, part, p in _trained(m):
        if part != "E":
            continue
        mask = new((p.shape[0], 1), "fp32", "to") if on_cuda() else None
        kept = new((p.shape[0], 1), "bool", "to")
        masked = new((p.shape[0], 1), "bool", "bitwise_not")
        del kept, masked
    del mask
    tape.scope = ""
