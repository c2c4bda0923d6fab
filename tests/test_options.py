"""Whatever is given as an option's value: it is taken, or refused in one line."""

import math
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memcalc import methods
from memcalc.errors import InvalidWorkload, MemcalcError
from memcalc.options import LARGEST, coerced, names_of, option, options_of
from memcalc.workload import Workload
from tests.strategies import anything
from tests.tiny import tiny


@dataclass(frozen=True)
class Given:
    """An option of each type."""

    count: int = option(1, "--count", "a whole number", aliases=("--how-many",))
    share: float = option(0.5, "--share", "a number")
    limit: float | None = option(None, "--limit", "a number or none")
    deep: bool = option(False, "--deep/--no-deep", "a switch")
    names: tuple[str, ...] = option((), "--names", "a list")
    kind: str = option("plain", "--kind", "a word", choices=("plain", "load-map"))
    text: str = option("", "--text", "any word")
    plain: int = 3  # no option


TAKEN: Final[list[tuple[str, object, object]]] = [
    ("count", 3, 3), ("count", 8.0, 8), ("count", LARGEST, LARGEST),
    ("share", 1, 1.0), ("share", 0, 0.0), ("share", 0.25, 0.25),
    ("limit", None, None), ("limit", "none", None), ("limit", 1, 1.0),
    ("deep", True, True), ("deep", False, False),
    ("names", "a,b", ("a", "b")), ("names", ["a", "b,c"], ("a", "b", "c")), ("names", (" a ",), ("a",)),
    ("names", [160, "empty"], ("160", "empty")),
    ("kind", "plain", "plain"), ("kind", "LOAD_MAP", "load-map"), ("kind", "load-map", "load-map"),
    ("text", "anything", "anything"),
]  # fmt: skip

REFUSED: Final[list[tuple[str, object, str]]] = [
    ("count", 0, "--count must be a whole number from 1"), ("count", -1, "--count"), ("count", 1.5, "--count"),
    ("count", True, "--count"), ("count", "3", "--count"), ("count", None, "--count"),
    ("count", math.inf, "--count"), ("count", math.nan, "--count"), ("count", LARGEST + 1, "--count"),
    ("share", -0.1, "--share must be at least 0"), ("share", math.nan, "--share"), ("share", math.inf, "--share"),
    ("share", True, "--share"), ("share", "1", "--share"), ("share", 1e300, "--share"),
    ("limit", 0, "--limit must be above 0, or none"), ("limit", -1, "--limit"), ("limit", "many", "--limit"),
    ("deep", 1, "--deep is a switch"), ("deep", "true", "--deep"), ("deep", None, "--deep"),
    ("names", "a,,b", "--names 'a,,b' has an empty name"), ("names", "", "--names"), ("names", [1.5], "--names"),
    ("names", {"a": 1}, "--names"), ("names", None, "--names"),
    ("kind", "other", "--kind 'other' is not one of plain, load-map"), ("kind", 3, "--kind is a word"),
    ("text", ["a"], "--text is a word"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), TAKEN, ids=str)
def test_what_people_and_json_write_is_taken(name: str, value: object, expected: object) -> None:
    taken = coerced(Given, {name: value})
    assert taken == {name: expected}
    assert type(taken[name]) is type(expected)


@pytest.mark.parametrize(("name", "value", "message"), REFUSED, ids=str)
def test_what_cannot_be_is_refused_by_the_options_name(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidWorkload) as caught:
        coerced(Given, {name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_goes_by_its_field_and_its_aliases() -> None:
    assert names_of(Given)["how_many"] == "count"
    assert "plain" not in names_of(Given)
    assert list(options_of(Given)) == ["count", "share", "limit", "deep", "names", "kind", "text"]
    assert options_of(Given)["deep"].name == "--deep"


@given(st.sampled_from(sorted(options_of(Given))), anything())
def test_any_value_at_all_is_taken_or_refused(name: str, value: Any) -> None:
    try:
        coerced(Given, {name: value})
    except InvalidWorkload as error:
        assert "\n" not in str(error)
        assert options_of(Given)[name].name in str(error)


@pytest.mark.parametrize("method", methods.names())
def test_no_value_of_any_option_is_more_than_refused(method: str) -> None:
    """Every option of a workload and of the method, three at once, and names that are none."""
    names = [
        *names_of(Workload),
        *names_of(methods.load(method).METHOD),
        "nonsense",
        "Batch-Size",
        "",
        "config_changes ",
    ]
    given_values = st.dictionaries(st.sampled_from(names), anything(), max_size=3)

    @settings(max_examples=150)
    @given(given_values)
    def check(options: dict[str, Any]) -> None:
        try:
            assert isinstance(tiny("llama", method, **options), Workload)
        except MemcalcError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 500

    check()


@pytest.mark.parametrize("cls", [Workload, *(methods.load(name).METHOD for name in methods.names())])
def test_every_option_has_a_flag_and_a_help(cls: type) -> None:
    for described in options_of(cls).values():
        assert described.flag.startswith("--")
        assert described.help
        assert not described.help.endswith(".")
    flags = [flag for described in options_of(cls).values() for flag in (described.name, *described.aliases)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("method", methods.names())
def test_a_methods_options_are_none_of_the_workloads(method: str) -> None:
    assert not names_of(Workload).keys() & names_of(methods.load(method).METHOD).keys()
