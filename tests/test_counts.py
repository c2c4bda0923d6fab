"""Parameter counts against transformers and peft. The whole catalog: python -m tests.counts."""

import pytest

from memcalc import families
from memcalc.catalog.find import Model
from tests.counting import catalog, counts

CATALOG = {model.name: model for model in catalog()}
CHOSEN = (
    "bloom-1.3b", "llama-2-7b", "llama-3.2-1b", "tinyllama-1.1b", "smollm2-135m", "falcon3-1b", "mistral-7b-v0.3",
    "qwen1.5-7b", "qwen2.5-0.5b", "qwen2.5-7b",
)  # fmt: skip


def size(model: Model) -> int:
    config = families.find(model.config["model_type"]).read(model)
    return config.hidden * (config.vocab + config.layers * config.intermediate)


SMALLEST = {model.config["model_type"]: model.name for model in sorted(CATALOG.values(), key=size, reverse=True)}


@pytest.mark.parametrize("name", sorted({*CHOSEN, *SMALLEST.values()}))
def test_total_and_trainable_parameters_are_those_of_transformers_and_peft(name: str) -> None:
    for count in counts(CATALOG[name]):
        assert count.estimated == count.real, count.method
