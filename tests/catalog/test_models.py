"""Every model of the catalog, built by transformers on meta and counted."""

from pathlib import Path
from typing import Any

import pytest

from memcalc.catalog import find
from memcalc.catalog.reading import read_object

FILES = sorted((Path(find.__file__).parent / "models").glob("*.json"))
ENTRIES = {key: entry for file in FILES for key, entry in read_object(str(file)).items()}  # refuses a key given twice


def counted(config: dict[str, Any]) -> int:
    """Parameters of a decoder from its config's numbers alone."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    if config["model_type"] == "bloom":
        # four matrices of 12 h² with their biases, two layer norms; a norm after the embedding, one at the end
        layer = 12 * hidden**2 + (3 + 1 + 4 + 1) * hidden + 4 * hidden
        return vocab * hidden + config["n_layer"] * layer + 4 * hidden
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    bias = head_dim * (heads + 2 * kv_heads) if config["model_type"] == "qwen2" else 0
    layer = attention + bias + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = vocab * hidden * (1 if config["tie_word_embeddings"] else 2)
    return embeddings + config["num_hidden_layers"] * layer + hidden


def built(config: dict[str, Any]) -> int:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**values))
    assert type(model).__name__ == config["architectures"][0]
    return sum(parameter.numel() for parameter in model.parameters())


def test_there_are_at_least_forty_models_of_four_families() -> None:
    families = {entry["config"]["model_type"] for entry in ENTRIES.values()}
    assert families >= {"llama", "mistral", "qwen2", "bloom"}
    assert len(ENTRIES) >= 40


@pytest.mark.parametrize("key", ENTRIES)
def test_transformers_builds_a_model_of_the_counted_and_published_size(key: str) -> None:
    config = ENTRIES[key]["config"]
    assert built(config) == counted(config) == ENTRIES[key].get("parameters", counted(config))


def test_a_file_holds_one_model_type_and_is_named_like_it() -> None:
    for file in FILES:
        assert {entry["config"]["model_type"] for entry in read_object(str(file)).values()} == {file.stem}


def test_every_entry_names_its_sources() -> None:
    for key, entry in ENTRIES.items():
        assert entry["sources"], key
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
    ],
)
def test_well_known_counts_stand_in_the_catalog(key: str, parameters: int) -> None:
    assert ENTRIES[key]["parameters"] == parameters


def test_the_surveys_bloom_has_its_vocabulary_and_shape() -> None:
    config = ENTRIES["bloom-1.3b"]["config"]
    assert (config["vocab_size"], config["hidden_size"], config["n_layer"], config["n_head"]) == (46_145, 2048, 24, 16)
