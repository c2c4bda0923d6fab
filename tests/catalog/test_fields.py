import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.catalog.fields import Fields
from memcalc.errors import BadFile, MemcalcError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def fields(**values: object) -> Fields:
    return Fields(values, "mine.json")


@pytest.mark.parametrize("value", [4096, 4096.0])
def test_a_whole_number_is_one_with_or_without_its_point(value: float) -> None:
    found = fields(hidden_size=value).integer("hidden_size")
    assert found == 4096
    assert isinstance(found, int)


@pytest.mark.parametrize("value", [4096.5, math.nan, math.inf, "4096", True, [4096], {}, -1, 2**31, 10**400])
def test_what_is_no_whole_number_in_range_is_refused_with_key_and_value(value: object) -> None:
    with pytest.raises(BadFile) as refusal:
        fields(hidden_size=value).integer("hidden_size")
    said = str(refusal.value)
    assert said.startswith("mine.json: hidden_size must be a whole number from 0 to 2,147,483,647, not ")
    assert repr(value)[:20] in said


def test_bounds_include_their_ends() -> None:
    for value in (1, 5):
        assert fields(layers=value).integer("layers", at_least=1, at_most=5) == value
    for value in (0, 6):
        with pytest.raises(BadFile, match="from 1 to 5"):
            fields(layers=value).integer("layers", at_least=1, at_most=5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.1", False, 10**400, 1.5, -0.1])
def test_what_is_no_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(BadFile, match="dropout must be a finite number from 0 to 1, not"):
        fields(dropout=value).number("dropout", at_least=0, at_most=1)


def test_a_number_may_be_written_whole() -> None:
    assert fields(dropout=0).number("dropout") == 0.0


@pytest.mark.parametrize("value", [0, 1, "true", [], 1.0])
def test_only_true_and_false_are_a_flag(value: object) -> None:
    with pytest.raises(BadFile, match="use_cache must be true or false"):
        fields(use_cache=value).flag("use_cache")


@pytest.mark.parametrize("value", [3, "", ["silu"]])
def test_only_a_string_that_is_not_empty_is_text(value: object) -> None:
    with pytest.raises(BadFile, match="hidden_act must be a name in quotes"):
        fields(hidden_act=value).text("hidden_act")


def test_the_first_key_that_stands_there_and_is_not_null_counts() -> None:
    assert fields(n_embd=None, hidden_size=64).integer("n_embd", "hidden_size") == 64
    assert fields(n_embd=32, hidden_size=64).integer("n_embd", "hidden_size") == 32


def test_a_null_counts_as_absent() -> None:
    assert fields(use_cache=None).flag("use_cache", default=True) is True
    assert "use_cache" in fields(use_cache=None)
    assert "use_cache" not in fields()


def test_a_missing_key_is_named_in_all_its_spellings() -> None:
    with pytest.raises(BadFile, match=r"hidden_size or n_embd is missing: not a whole config\.json of a 'llama' model"):
        fields(model_type="llama").integer("hidden_size", "n_embd")


def test_a_config_of_several_models_says_where_the_language_model_is() -> None:
    with pytest.raises(BadFile, match="a config of several models \\('llava'\\): save what stands in its text_config"):
        fields(model_type="llava", text_config={"model_type": "llama"}).integer("hidden_size")


@given(st.dictionaries(st.sampled_from(["a", "b"]), JSON))
def test_any_json_is_read_or_refused_in_one_line(values: dict[str, Any]) -> None:
    view = Fields(values, "mine.json")
    for read in (view.integer, view.number, view.flag, view.text):
        try:
            found = read("a", "b")
        except MemcalcError as refusal:
            assert "\n" not in str(refusal)
        else:
            assert not isinstance(found, float) or abs(found) <= sys.float_info.max
