"""Every model of the catalog: counted from its config, built by transformers on meta, declared by estimate."""

from pathlib import Path

import pytest

from memcalc import families
from memcalc.catalog import tables
from memcalc.catalog.fields import Fields
from memcalc.catalog.find import models
from memcalc.catalog.parameters import total_parameters
from memcalc.catalog.reading import read_object
from memcalc.errors import NotModelled
from tests.catalog.building import built, built_by_layers, counted, declared

FILES = sorted((Path(tables.__file__).parent / "models").glob("*.json"))
ENTRIES = {key: entry for file in FILES for key, entry in read_object(str(file)).items()}  # refuses a key given twice
MODELS = {model.name: model for model in models()}
ONE_SOURCE = {  # facts that nobody else publishes, and the one checkpoint whose second witness is still wanting
    "bloom-1.3b",
    "powerlm-3b-fms",
    "mistral-7b-v0.1-fms",
    "deepseek-coder-33b",
}
ESTIMATED = [key for key, model in MODELS.items() if model.config["model_type"] in families.names()]


def test_there_are_at_least_150_models_of_all_families() -> None:
    assert len(ENTRIES) >= 150
    assert {entry["config"]["model_type"] for entry in ENTRIES.values()} >= {
        *("llama", "mistral", "qwen2", "bloom", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "granite", "gpt2"),
        *("gpt_neox", "opt", "falcon", "gpt_bigcode", "starcoder2", "olmo2", "cohere", "glm4"),
    }


@pytest.mark.parametrize("key", ENTRIES)
def test_transformers_builds_a_model_of_the_counted_and_published_size(key: str) -> None:
    model = MODELS[key]
    assert built_by_layers(model.config) == counted(model) == ENTRIES[key].get("parameters", counted(model))


@pytest.mark.parametrize("key", ["gemma-3-270m", "gpt2", "pythia-14m", "opt-350m", "qwen2-0.5b", "cerebras-gpt-111m"])
def test_two_layers_tell_what_the_whole_model_has(key: str) -> None:
    assert built_by_layers(MODELS[key].config) == built(MODELS[key].config)


@pytest.mark.parametrize("key", ESTIMATED)
def test_estimate_declares_as_many_parameters(key: str) -> None:
    try:
        found = declared(MODELS[key])
    except NotModelled as refusal:
        pytest.skip(str(refusal))
    assert found == counted(MODELS[key])


def test_a_type_that_is_not_known_has_no_count() -> None:
    for model_type in ("mamba", "qwen2_moe"):
        assert total_parameters(Fields({"model_type": model_type}, "mine.json")) is None


def test_a_file_holds_one_model_type_and_is_named_like_it() -> None:
    for file in FILES:
        assert {entry["config"]["model_type"] for entry in read_object(str(file)).values()} == {file.stem}


def test_every_entry_names_two_sources() -> None:
    for key, entry in ENTRIES.items():
        assert len(set(entry["sources"])) >= (1 if key in ONE_SOURCE else 2), key
        assert entry.keys() <= {"names", "choices", "parameters", "sources", "config"}, key


@pytest.mark.parametrize(
    ("key", "parameters"),
    [
        ("bloom-1.3b", 1_303_111_680),  # the survey's
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-3b", 3_212_749_824),
        ("smollm2-1.7b", 1_711_376_384),
        ("tinyllama-1.1b", 1_100_048_384),
        ("llama-2-7b", 6_738_415_616),
        ("mistral-7b-v0.3", 7_248_023_552),
        ("qwen2.5-7b", 7_615_616_512),
        ("bloom-176b", 176_247_271_424),
        ("qwen3-8b", 8_190_735_360),
        ("gemma-2-9b", 9_241_705_984),
        ("gemma-3-1b", 999_885_952),
        ("phi-4", 14_659_507_200),
        ("pythia-6.9b", 6_857_302_016),
        ("gpt2", 124_439_808),
        ("starcoder", 15_517_456_384),
        ("olmo-2-7b", 7_298_617_344),
        ("granite-3.3-8b-instruct", 8_170_864_640),
        ("glm-4-9b-0414", 9_400_279_040),
    ],
)
def test_well_known_counts_stand_in_the_catalog(key: str, parameters: int) -> None:
    assert ENTRIES[key]["parameters"] == parameters


def test_the_surveys_bloom_has_its_vocabulary_and_shape() -> None:
    config = ENTRIES["bloom-1.3b"]["config"]
    assert (config["vocab_size"], config["hidden_size"], config["n_layer"], config["n_head"]) == (46_145, 2048, 24, 16)
