"""Parameter counts against transformers and peft. The whole catalog: python -m tests.counts."""

import pytest

from memcalc import families
from memcalc.catalog.find import find_model
from tests.counting import catalog, counts

SAMPLE = (
    "bloom-560m", "bloom-1.3b", "llama-2-7b", "llama-3.2-1b", "tinyllama-1.1b", "smollm2-135m", "deepseek-coder-1.3b",
    "falcon3-1b", "mistral-7b-v0.1", "mistral-7b-v0.3", "qwen1.5-7b", "qwen2.5-0.5b", "qwen2.5-7b",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_total_and_trainable_parameters_are_those_of_transformers_and_peft(name: str) -> None:
    for count in counts(find_model(name)):
        assert count.estimated == count.real, count.method


def test_the_sample_has_every_family_of_the_catalog() -> None:
    types = {model.config["model_type"] for model in catalog()}
    assert {find_model(name).config["model_type"] for name in SAMPLE} == types
    assert types <= set(families.names())
