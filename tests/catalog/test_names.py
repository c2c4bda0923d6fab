import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.catalog.names import is_hub_id, loose, mentions


@pytest.mark.parametrize("spelling", ["llama-3.1-8b", "Llama_3.1_8B", "LLAMA 3.1 8b", "llama3.1-8B", "llama-3-1-8b"])
def test_case_and_separators_do_not_matter(spelling: str) -> None:
    assert loose(spelling) == loose("Llama-3.1-8B")


@pytest.mark.parametrize(("one", "other"), [("1.3b", "13b"), ("qwen2-1.5b", "qwen2-15b"), ("llama-3-8b", "llama-38b")])
def test_a_separator_between_figures_matters(one: str, other: str) -> None:
    assert loose(one) != loose(other)


@given(st.text())
def test_loosening_twice_changes_nothing(name: str) -> None:
    assert loose(loose(name)) == loose(name)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["llama3"], "llama-3.1-8b"),
        (["llama", "8B"], "llama-3.1-8b"),
        (["Llama_3.1"], "meta-llama/Llama-3.1-8B"),
        (["3b"], "llama-3.2-3b"),
        (["tiny"], "tinyllama-1.1b"),
        (["rtx", "4090"], "NVIDIA GeForce RTX 4090"),
        ([], "anything"),
    ],
)
def test_words_are_found_however_they_are_joined(words: list[str], text: str) -> None:
    assert mentions(words, [text])


@pytest.mark.parametrize(
    ("word", "text"), [("3b", "llama-13b"), ("3b", "bloom-1.3b"), ("3.1", "llama-3-8b"), ("80", "1080")]
)
def test_a_number_is_never_found_inside_another(word: str, text: str) -> None:
    assert not mentions([word], [text])


def test_every_word_must_be_found_but_not_in_the_same_text() -> None:
    assert mentions(["meta", "8b"], ["llama-3.1-8b", "meta-llama/Llama-3.1-8B"])
    assert not mentions(["meta", "9b"], ["llama-3.1-8b", "meta-llama/Llama-3.1-8B"])


@given(st.lists(st.text()), st.lists(st.text()))
def test_any_words_may_be_looked_for(words: list[str], texts: list[str]) -> None:
    assert mentions(words, texts) in {True, False}


@pytest.mark.parametrize("text", ["Qwen/Qwen3-8B", "a/b", "EleutherAI/pythia-1.4b"])
def test_a_hub_id_is_two_names_with_a_slash(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize("text", ["qwen3", "a/b/c", "a/", "/b", "a/..", "a b/c", "a/b\n", "é/b", "a/" + "b" * 97])
def test_a_path_or_a_sentence_is_none(text: str) -> None:
    assert not is_hub_id(text)
