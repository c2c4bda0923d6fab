"""What a budget of parameters buys: of each method the largest size within it, and what that needs.

A method's size is the option that its own file marks so. Counting declares the model and runs nothing, so a size is
searched for by trying: doubling, then halving, along the values that the method's `sizes` gives in order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from memcalc import methods
from memcalc.catalog.find import Model, find_model
from memcalc.errors import InvalidWorkload, MemcalcError, shown
from memcalc.estimating import architecture_of, bare_of, estimate, without_collector
from memcalc.options import names_of, number, options_of
from memcalc.planning.frames import framed
from memcalc.planning.survey import Tell, checked, fits, workload
from memcalc.step.declaring import linear_shapes, trained_in
from memcalc.units import parse_count
from memcalc.workload import Workload

if TYPE_CHECKING:
    from pandas import DataFrame

Count = Callable[[int], int | None]  # parameters that train with a size; None where the method refuses it


@dataclass(frozen=True)
class Bought:
    """One method at one size."""

    method: str
    type: str
    option: str | None  # the flag of its size; None where it has none
    size: float | None
    trainable_params: int
    total_params: int
    next_size: int | None  # the next larger one; None where there is none, or none was searched for
    next_params: int | None
    checkpoint_bytes: int
    peak_reserved: int | None  # None on the CPU, which reserves nothing
    peak_allocated: int
    fits: bool | None  # on the workload's GPU; None on the CPU


@dataclass(frozen=True)
class Budget:
    """The rows of those methods that the budget buys, the reasons of those that it does not."""

    model: str
    params: int | None  # None: sizes are as given, and their costs are told
    model_params: int
    rows: tuple[Bought, ...]
    refused: Mapping[str, str]  # why, by method

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "memcalc.budget/1",
            "model": self.model,
            "params": self.params,
            "model_params": self.model_params,
            "rows": [asdict(row) for row in self.rows],
            "refused": dict(self.refused),
        }

    def to_frame(self) -> "DataFrame":
        """A row for each method, refused ones too, with their `reason`. Raises MissingPackage without pandas."""
        return framed(Bought, self.rows, self.refused)


def budget(
    model: str | Model,
    names: Iterable[str],
    options: Mapping[str, Any],
    params: int | str | None = None,
    percent: float | None = None,
    tell: Tell = lambda _: None,
) -> Budget:
    """Every method of `names` within a number of parameters (10_000_000, "10M"), or a percentage of the model's own.

    Without either, every method as it is given. Raises InvalidWorkload or UnknownName for what cannot be.
    """
    chosen = checked(names, options)
    model = model if isinstance(model, Model) else find_model(model)
    bare = bare_of(workload(model, "full", {"seq_len": 1}))
    own = sum(prod(one.shape) for one in bare.base.values() if one.kind != "buffer")
    limit = _limit(params, percent, own)
    if limit is not None:
        _refuse_given_sizes(chosen, options)
    rows: list[Bought] = []
    refused: dict[str, str] = {}
    with without_collector():
        for name in chosen:
            tell(name)
            try:
                rows.append(_as_given(model, name, options) if limit is None else _within(model, name, options, limit))
            except MemcalcError as error:
                refused[name] = str(error)
    return Budget(model.name, limit, own, tuple(rows), refused)


def _limit(params: int | str | None, percent: float | None, own: int) -> int | None:
    if params is not None and percent is not None:
        raise InvalidWorkload("--params and --percent are one budget: give one of them")
    if percent is not None:
        if not 0 < number(percent, "--percent") <= 100:
            raise InvalidWorkload(f"--percent must be above 0 and at most 100, not {shown(percent)}")
        return int(own * percent / 100)
    limit = parse_count(params) if isinstance(params, str) else params
    if params is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidWorkload(f"--params {shown(params)}: a number of parameters, such as 10M, 1.5B or 250k")
    return limit


def size_of(method: str) -> str:
    """The option that is the method's size, by its field's name; "" where there is none."""
    declared = options_of(methods.load(method).METHOD)
    return next((name for name, described in declared.items() if described.size), "")


def _refuse_given_sizes(chosen: Sequence[str], options: Mapping[str, Any]) -> None:
    for option in options:
        plain = option.replace("-", "_")
        for name in chosen:
            if names_of(methods.load(name).METHOD).get(plain, "") == size_of(name) != "":
                flag = f"--{plain.replace('_', '-')}"
                raise InvalidWorkload(f"{flag} is what a budget is searched for: leave it out, or leave the budget out")


def _as_given(model: Model, name: str, options: Mapping[str, Any]) -> Bought:
    w = workload(model, name, options)
    size = size_of(name)
    return _bought(w, size, w.method.options()[size] if size else None)


def _within(model: Model, name: str, options: Mapping[str, Any], limit: int) -> Bought:
    """The largest size of a method within the limit. Raises InvalidWorkload where none is."""
    plain, size = workload(model, name, options), size_of(name)
    if not size:
        fixed = trained_in(architecture_of(plain))
        if fixed > limit:
            raise InvalidWorkload(f"it trains {fixed:,} parameters, and has no size to choose")
        return _bought(plain, "", None)

    def sized(value: int) -> Workload:
        return workload(model, name, {**options, size: value})

    @cache
    def count(value: int) -> int | None:
        try:
            return trained_in(architecture_of(sized(value)))
        except InvalidWorkload:
            return None

    bare = bare_of(plain)
    targets = plain.method.targets(bare.anatomy)
    values = plain.method.sizes(linear_shapes(bare.base, (name for name in bare.anatomy.linears if name in targets)))
    if not values:
        raise InvalidWorkload(f"no {_flag(plain, size)} suits all of its targets")
    at = largest(values, count, limit)
    if at is None:
        least = trained_in(architecture_of(sized(values[0])))  # raises what it is refused for
        raise InvalidWorkload(f"it trains {least:,} parameters at least, with {_flag(plain, size)} {values[0]}")
    following = values[at + 1] if at + 1 < len(values) else None
    more = None if following is None else count(following)
    return _bought(sized(values[at]), size, values[at], None if more is None else following, more)


def largest(values: Sequence[int], count: Count, limit: int) -> int | None:
    """The place of a value within the limit behind which the next is not; None where the first is beyond it already."""

    def within(place: int) -> bool:
        counted = count(values[place])
        return counted is not None and counted <= limit

    if not within(0):
        return None
    low, step = 0, 1
    while low + step < len(values) and within(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


def _bought(
    w: Workload, size: str, value: float | None, next_size: int | None = None, next_params: int | None = None
) -> Bought:
    footprint = estimate(w)
    assert footprint.trainable_params is not None
    assert footprint.total_params is not None
    assert footprint.checkpoint_bytes is not None
    assert footprint.peak_allocated is not None
    return Bought(
        method=w.method_name,
        type=w.method.kind,
        option=_flag(w, size) if size else None,
        size=value,
        trainable_params=footprint.trainable_params,
        total_params=footprint.total_params,
        next_size=next_size,
        next_params=next_params,
        checkpoint_bytes=footprint.checkpoint_bytes,
        peak_reserved=footprint.peak_reserved,
        peak_allocated=footprint.peak_allocated,
        fits=fits(w, footprint),
    )


def _flag(w: Workload, size: str) -> str:
    return options_of(type(w.method))[size].name
