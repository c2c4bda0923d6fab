import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.catalog.names import loose


@pytest.mark.parametrize("spelling", ["llama-3.1-8b", "Llama_3.1_8B", "LLAMA 3.1 8b", "llama3.1-8B", "llama-3-1-8b"])
def test_case_and_separators_do_not_matter(spelling: str) -> None:
    assert loose(spelling) == loose("Llama-3.1-8B")


@pytest.mark.parametrize(("one", "other"), [("1.3b", "13b"), ("qwen2-1.5b", "qwen2-15b"), ("llama-3-8b", "llama-38b")])
def test_a_separator_between_figures_matters(one: str, other: str) -> None:
    assert loose(one) != loose(other)


@given(st.text())
def test_loosening_twice_changes_nothing(name: str) -> None:
    assert loose(loose(name)) == loose(name)
