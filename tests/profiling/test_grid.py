import pytest

from memcalc.errors import InvalidWorkload
from memcalc.profiling.grid import combinations


def test_lists_are_multiplied_the_last_fastest() -> None:
    found = list(combinations({"a": [1, 2], "b": "x", "c": [True, False]}, None, None))
    assert [(each["a"], each["b"], each["c"]) for each in found] == [
        (1, "x", True),
        (1, "x", False),
        (2, "x", True),
        (2, "x", False),
    ]


def test_variants_are_one_axis_of_tables() -> None:
    found = list(combinations({"batch": [1, 2]}, None, [{"method": "full"}, {"method": "lora", "lora-dropout": 0.1}]))
    assert len(found) == 4
    assert found[1] == {"batch": 1, "method": "lora", "lora_dropout": 0.1}


def test_what_is_excluded_is_gone_and_a_list_means_any() -> None:
    rules = [{"a": 1, "b": ["x", "y"]}]
    assert list(combinations({"a": [1, 2], "b": ["x", "z"]}, rules, None)) == [
        {"a": 1, "b": "z"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "z"},
    ]


@pytest.mark.parametrize(
    ("table", "excluded", "variants", "says"),
    [
        ({"a": []}, None, None, "empty list"),
        ({"a": list(range(100)), "b": list(range(100))}, None, None, "10,000 combinations"),
        ({"a": [1, 2]}, [{"a": 3}], None, "meets no combination"),
        ({"a": [1, 2]}, [{"a": True}], None, "meets no combination"),
        ({"a": 1}, {"a": 1}, None, "exclude must be a list"),
        ({"a": 1}, [3], None, "exclude must be a list"),
        ({"a": 1}, None, "x", "variants must be a list"),
        ({"a": 1}, None, [], "variants must be a list"),
    ],
)
def test_what_cannot_be_is_refused(table: dict[str, object], excluded: object, variants: object, says: str) -> None:
    with pytest.raises(InvalidWorkload, match=says):
        list(combinations(table, excluded, variants))
