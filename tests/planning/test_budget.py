from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memcalc
from memcalc import methods
from memcalc.catalog.find import Model
from memcalc.errors import InvalidWorkload, MemcalcError
from memcalc.estimating import architecture_of, bare_of, estimate
from memcalc.options import options_of
from memcalc.planning.budget import Bought, Budget, budget, largest, size_of
from memcalc.planning.survey import workload
from memcalc.step.declaring import linear_shapes, trained_in
from tests.tiny import _NARROW, TINY

SIZED: Final = [name for name in methods.names() if size_of(name)]
_METHOD: Final = pytest.mark.parametrize("method", SIZED)
_MODEL: Final = Model("tiny", TINY["llama"], "test")
_SIZES: Final = ("rank", "virtual_tokens", "num_virtual_tokens", "bottleneck", "bottleneck_dim", "layers")


def _options(method: str) -> dict[str, Any]:
    narrow = {name: value for name, value in _NARROW.get(method, {}).items() if name != size_of(method)}
    return {"batch": 1, "seq_len": 24, **narrow}


def _budget(*names: str, params: Any = None, percent: float | None = None, **options: Any) -> Budget:
    given = {name: value for method in names for name, value in _options(method).items()}
    return budget(_MODEL, names, {**given, **options}, params, percent)


def _count(method: str, option: str = "", value: int = 0) -> int | None:
    try:
        w = workload(_MODEL, method, {**_options(method), **({option: value} if option else {})})
        return trained_in(architecture_of(w))
    except InvalidWorkload:
        return None


def _sizes(method: str) -> list[int]:
    """The first sizes that the method may have, in its own order."""
    w = workload(_MODEL, method, _options(method))
    bare = bare_of(w)
    targets = w.method.targets(bare.anatomy)
    shapes = linear_shapes(bare.base, (name for name in bare.anatomy.linears if name in targets))
    return list(w.method.sizes(shapes)[:70])


@_METHOD
@pytest.mark.parametrize("factor", [1, 3, 7])
def test_the_size_is_within_the_budget_and_the_next_is_not(method: str, factor: int) -> None:
    least = _count(method, size_of(method), _sizes(method)[0])
    assert least is not None
    params = factor * least + 5
    (row,) = _budget(method, params=params).rows
    assert row.trainable_params <= params
    assert row.size is not None
    assert row.trainable_params == _count(method, size_of(method), int(row.size))
    if row.next_size is None:
        following = _sizes(method)[_sizes(method).index(int(row.size)) + 1 :][:1]
        assert [size for size in following if _count(method, size_of(method), size) is not None] == []
    else:
        assert row.next_params == _count(method, size_of(method), row.next_size)
        assert row.next_params is not None
        assert row.next_params > params


@_METHOD
def test_sizes_stand_in_the_order_of_what_they_train(method: str) -> None:
    counts = [count for size in _sizes(method) if (count := _count(method, size_of(method), size)) is not None]
    assert len(counts) > 1
    assert counts == sorted(counts)


@_METHOD
def test_what_a_size_costs_buys_that_size(method: str) -> None:
    """The inverse: of sizes that train different numbers."""
    sizes = _sizes(method)
    size = sizes[min(2, len(sizes) - 1)]
    (given,) = _budget(method, **{size_of(method): size}).rows
    (bought,) = _budget(method, params=given.trainable_params).rows
    assert bought.trainable_params == given.trainable_params
    assert (given.size, given.option) == (size, bought.option)


@pytest.mark.parametrize("method", methods.names())
def test_a_method_marks_the_option_that_is_its_size(method: str) -> None:
    declared = options_of(methods.load(method).METHOD)
    assert sum(described.size for described in declared.values()) <= 1
    plain = workload(_MODEL, method, _options(method)).method.options()
    likely = [name for name in declared if name in _SIZES and _count(method, name, plain[name] + 1) != _count(method)]
    assert size_of(method) or not likely, f"is --{likely[0]} what sets how many parameters train? option(…, size=True)"


def test_memory_and_checkpoint_are_those_of_estimate() -> None:
    (row,) = _budget("lora", params=5_000).rows
    footprint = estimate(workload(_MODEL, "lora", {**_options("lora"), "rank": row.size}))
    for name in ("trainable_params", "total_params", "checkpoint_bytes", "peak_reserved", "peak_allocated"):
        assert getattr(row, name) == getattr(footprint, name), name


def test_a_method_without_a_size_is_bought_or_says_what_it_trains() -> None:
    (row,) = _budget("ln_tuning", params=10_000).rows
    assert (row.option, row.size) == (None, None)
    assert _budget("full", params=1_000).refused == {"full": "it trains 165,696 parameters, and has no size to choose"}


def test_what_the_budget_does_not_buy_says_what_the_least_is() -> None:
    least = _count("lora", "rank", 1)
    assert _budget("lora", params=10).refused == {"lora": f"it trains {least:,} parameters at least, with --rank 1"}


def test_a_refusal_that_no_size_mends_is_told_as_it_is() -> None:
    assert "target" in _budget("lora", params=10_000, target="nonsense").refused["lora"]


def test_a_percentage_is_of_the_models_own_parameters() -> None:
    found = _budget("lora", "full", percent=2.0)
    assert found.params == int(0.02 * found.model_params)
    assert found.rows == _budget("lora", params=found.params).rows


def test_virtual_tokens_end_where_learned_positions_do() -> None:
    model = Model("tiny", TINY["gpt2"], "test")
    (row,) = budget(model, ("prompt_tuning",), {"seq_len": 200}, "1M").rows
    assert (row.size, row.next_size) == (56, None)  # of 256 positions


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"params": 1, "percent": 1.0}, "one budget"),
        ({"params": "much"}, "such as 10M"),
        ({"params": 0}, "such as 10M"),
        ({"percent": 101.0}, "at most 100"),
        ({"percent": 0.0}, "above 0"),
        ({"params": 100, "rank": 3}, "--rank is what a budget is searched for"),
        ({"params": 100, "lora_r": 3}, "--lora-r is what a budget is searched for"),
    ],
)
def test_what_is_no_budget_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MemcalcError, match=said):
        _budget("lora", **given)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 40), st.booleans())
def test_the_search_ends_where_the_next_is_beyond(counts: list[int], limit: int, rising: bool) -> None:
    """Rising counts: at the very last that is within; any others: at one whose next is not."""
    if rising:
        counts = sorted(counts)
    refused_from = 35
    count: Callable[[int], int | None] = lambda value: counts[value] if value < refused_from else None  # noqa: E731
    within = [value < refused_from and counts[value] <= limit for value in range(len(counts))]
    place = largest(range(len(counts)), count, limit)
    if place is None:
        assert not within[0]
        return
    assert within[place]
    assert place + 1 == len(counts) or not within[place + 1]
    if rising:
        assert sum(within) == place + 1


def test_a_search_counts_few_sizes() -> None:
    asked: list[int] = []

    def count(value: int) -> int:
        asked.append(value)
        return 8 * value

    assert largest(range(1, 2**31), count, 80_000) == 9_999
    assert len(asked) < 30


def test_the_public_function_takes_a_text_and_makes_a_frame() -> None:
    found = memcalc.budget("smollm2-135m", "1M", only=("lora", "prompt_tuning", "full"), seq_len=64)
    assert isinstance(found.rows[0], Bought)
    frame = found.to_frame()
    assert list(frame["method"]) == ["lora", "prompt_tuning", "full"]
    assert list(frame["size"][:2]) == [row.size for row in found.rows]
