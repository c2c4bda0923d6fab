"""Each family's reader against transformers' own config class, where only what a checkpoint must say is given."""

from dataclasses import replace
from typing import Any, Final

import pytest

from memcalc import families
from memcalc.catalog.find import Model
from memcalc.errors import BadFile, NotModelled
from memcalc.families.config import Config
from tests.tiny import TINY

SIZES: Final = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 32, "vocab_size": 211}
NAMES: Final = {  # what a family calls what others call by the first name
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "hidden_act": ("hidden_act", "hidden_activation", "activation_function", "activation"),
    "attention_dropout": ("attention_dropout", "attn_pdrop"),
    "hidden_dropout": ("residual_dropout", "resid_pdrop", "hidden_dropout", "dropout"),
    "embedding_dropout": ("embedding_dropout", "embd_pdrop", "hidden_dropout"),
    "attention_bias": ("attention_bias", "use_bias", "enable_bias", "bias"),
}
IGNORED: Final = {"phi3": ("embedding_dropout",), "falcon": ("embedding_dropout", "attention_dropout")}  # not applied


def config(model_type: str, **values: object) -> Config:
    return families.find(model_type).read(Model("mine", {"model_type": model_type, **SIZES, **values}, "mine.json"))


def of_transformers(model_type: str, **values: object) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**{**SIZES, **values})


def named(theirs: Any, name: str, default: object) -> Any:
    found = next((getattr(theirs, own) for own in NAMES[name] if hasattr(theirs, own)), None)
    return default if found is None else found


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_what_a_config_leaves_out_is_as_in_transformers(model_type: str) -> None:
    ours, theirs = config(model_type), of_transformers(model_type)
    assert (ours.hidden, ours.layers, ours.heads, ours.vocab) == (256, 8, 32, 211)
    assert (ours.tied, ours.use_cache) == (theirs.tie_word_embeddings, theirs.use_cache)
    assert ours.intermediate == named(theirs, "intermediate_size", 4 * 256)
    if model_type != "bloom":  # its activation is written into the model, its positions have no end
        assert ours.hidden_act == named(theirs, "hidden_act", None)
        assert ours.max_positions == theirs.max_position_embeddings
    for name in ("attention_dropout", "hidden_dropout", "embedding_dropout"):
        if name not in IGNORED.get(model_type, ()) and hasattr(theirs, NAMES[name][0]):
            assert getattr(ours, name) == named(theirs, name, 0.0), name


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_heads_are_as_many_and_as_wide_as_in_transformers(model_type: str) -> None:
    ours, theirs = config(model_type), of_transformers(model_type)
    kv_heads = getattr(theirs, "num_key_value_heads", 32)
    assert ours.kv_heads == (1 if model_type == "falcon" else kv_heads)
    assert ours.head_dim == getattr(theirs, "head_dim", 8)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "qwen3", "qwen2"])
def test_windows_are_in_the_layers_that_transformers_names(model_type: str) -> None:
    values = {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 3}
    ours, theirs = config(model_type, **values), of_transformers(model_type, **values)
    assert list(ours.windows) == [16 if kind == "sliding_attention" else 0 for kind in theirs.layer_types]
    assert not ours.layers_alike
    again = config(model_type, layer_types=theirs.layer_types, **values)
    assert again.windows == ours.windows


def test_layer_types_are_checked() -> None:
    with pytest.raises(BadFile, match="layer_types must name each of the 8 layers"):
        config("gemma2", layer_types=["full_attention"])
    with pytest.raises(NotModelled, match="does not write layers of type 'chunked_attention'"):
        config("gemma2", layer_types=["chunked_attention"] * 8)


@pytest.mark.parametrize(
    ("model_type", "values", "turned"),
    [
        ("glm4", {}, 64), ("glm4", {"partial_rotary_factor": 0.25}, 32),
        ("glm4", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}}, 128),
        ("gpt_neox", {}, 2), ("gpt_neox", {"rotary_pct": 1.0}, 8), ("gpt_neox", {"partial_rotary_factor": 1.0}, 2),
        ("phi3", {}, 8), ("phi3", {"partial_rotary_factor": 0.5}, 4),
    ],
)  # fmt: skip
def test_the_turned_part_of_a_head_is_found_where_transformers_looks(
    model_type: str, values: dict[str, Any], turned: int
) -> None:
    theirs = of_transformers(model_type, **values)
    head_dim = getattr(theirs, "head_dim", 8)
    assert int(head_dim * theirs.rope_parameters["partial_rotary_factor"]) == turned
    assert config(model_type, **values).rotary_dim == turned


@pytest.mark.parametrize(
    ("model_type", "values", "said"),
    [
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ("gpt_bigcode", {"add_cross_attention": True}, "add_cross_attention"),
        ("opt", {"layerdrop": 0.1}, "layerdrop"),
        ("gemma3", {}, "vision tower"),
    ],
)
def test_rarities_are_left_to_trace(model_type: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(NotModelled, match=said):
        config(model_type, **values)


def test_older_names_of_longrope_are_longrope() -> None:
    for name in ("su", "yarn", "longrope"):
        assert config("phi3", rope_scaling={"type": name}).rope_type == "longrope"
    assert replace(config("llama"), rope_type="dynamic").layers_alike
