from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.catalog.find import Model, models
from memcalc.errors import BadFile, MemcalcError, NotModelled
from memcalc.families.config import Config, read_bloom, read_llama_like

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
BLOOM = {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}
READERS = {"llama": read_llama_like, "mistral": read_llama_like, "qwen2": read_llama_like, "bloom": read_bloom}
REQUIRED = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2"), ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    ),
    "bloom": ("hidden_size", "n_layer", "n_head", "vocab_size"),
}


def config(model_type: str, **values: object) -> Config:
    """The config read with `values` over a small one; a value of ... drops the key."""
    small = {**(BLOOM if model_type == "bloom" else LLAMA), "model_type": model_type, **values}
    given = {key: value for key, value in small.items() if value is not ...}
    return READERS[model_type](Model("mine", given, "mine.json"))


def transformers_config(model_type: str, **values: object) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**values)


def test_every_number_of_a_llama_is_read() -> None:
    read = config(
        "llama", head_dim=32, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, attention_dropout=0.1
    )
    assert (read.hidden, read.layers, read.heads, read.kv_heads, read.head_dim) == (64, 2, 4, 2, 32)
    assert (read.intermediate, read.vocab, read.max_positions, read.hidden_act) == (160, 100, 2048, "silu")
    assert (read.tied, read.attention_bias, read.output_bias, read.mlp_bias) == (True, True, True, True)
    assert (read.attention_dropout, read.hidden_dropout, read.use_cache) == (0.1, 0.0, True)


@pytest.mark.parametrize(
    ("model_type", "nulls"),  # of the nulls, those that transformers takes
    [
        ("llama", ()),
        ("llama", ("num_key_value_heads", "head_dim")),
        ("mistral", ()),
        ("mistral", ("head_dim",)),
        ("qwen2", ()),
        ("qwen2", ("num_key_value_heads",)),
    ],
)
def test_optional_keys_of_a_llama_like_model_default_as_in_transformers(
    model_type: str, nulls: tuple[str, ...]
) -> None:
    sizes = {"hidden_size": 256, "num_attention_heads": 32, "num_hidden_layers": 2, "vocab_size": 100}
    given = {**sizes, **dict.fromkeys(nulls)}
    theirs = transformers_config(model_type, **given)
    ours = READERS[model_type](Model("mine", {"model_type": model_type, **given}, "mine.json"))
    assert ours.kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert (ours.tied, ours.use_cache) == (theirs.tie_word_embeddings, theirs.use_cache)
    assert ours.attention_dropout == theirs.attention_dropout
    assert (ours.intermediate, ours.max_positions) == (theirs.intermediate_size, theirs.max_position_embeddings)
    assert ours.hidden_act == theirs.hidden_act


def test_optional_keys_of_a_bloom_default_as_in_transformers() -> None:
    theirs = transformers_config("bloom", **{key: value for key, value in BLOOM.items() if key != "model_type"})
    ours = config("bloom")
    assert (ours.tied, ours.use_cache) == (theirs.tie_word_embeddings, theirs.use_cache)
    assert (ours.hidden_dropout, ours.attention_dropout) == (theirs.hidden_dropout, theirs.attention_dropout)
    assert (ours.intermediate, ours.kv_heads, ours.head_dim, ours.max_positions) == (256, 4, 16, None)
    assert ours.attention_bias
    assert ours.output_bias
    assert ours.mlp_bias


def test_a_bloom_is_read_in_its_older_spellings() -> None:
    assert config("bloom", hidden_size=..., n_embed=128).hidden == 128
    assert config("bloom", hidden_size=64, n_embed=128).hidden == 128  # as transformers lets n_embed win
    assert config("bloom", n_layer=..., num_hidden_layers=3).layers == 3
    assert config("bloom", n_head=..., num_attention_heads=8).heads == 8


def test_biases_are_written_into_qwen2_and_not_into_mistral() -> None:
    qwen2, mistral = config("qwen2", attention_bias=False), config("mistral", attention_bias=True, mlp_bias=True)
    assert (qwen2.attention_bias, qwen2.output_bias, qwen2.mlp_bias) == (True, False, False)
    assert (mistral.attention_bias, mistral.output_bias, mistral.mlp_bias) == (False, False, False)


@pytest.mark.parametrize("model_type", READERS)
def test_sizes_that_every_checkpoint_has_are_required(model_type: str) -> None:
    for key in REQUIRED[model_type]:
        with pytest.raises(BadFile, match=f"{key}.* is missing"):
            config(model_type, **{key: ...})


@pytest.mark.parametrize("model_type", READERS)
@pytest.mark.parametrize("value", [0, -64, 64.5, "64", True, 2**31, [64]])
def test_impossible_sizes_are_refused_with_their_key(model_type: str, value: object) -> None:
    for key in REQUIRED[model_type]:
        with pytest.raises(BadFile, match=f"mine: {key} must be a whole number"):
            config(model_type, **{key: value})


@pytest.mark.parametrize(
    ("model_type", "values", "said"),
    [
        (
            "llama",
            {"num_key_value_heads": 3},
            r"num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)",
        ),
        ("llama", {"hidden_size": 66}, r"hidden_size \(66\) must be a multiple of num_attention_heads \(4\)"),
        ("bloom", {"hidden_size": 66}, r"hidden_size \(66\) must be a multiple of n_head \(4\)"),
        ("llama", {"head_dim": 15}, r"the head size \(15\) must be even"),
        ("llama", {"num_hidden_layers": 10_001}, "num_hidden_layers must be a whole number from 1 to 10,000"),
        ("llama", {"hidden_size": 2**30, "vocab_size": 2**30}, "more than 1,000,000,000,000,000 parameters"),
        ("bloom", {"hidden_size": 2**24, "vocab_size": 2**30}, "more than 1,000,000,000,000,000 parameters"),
        ("llama", {"attention_dropout": 1.5}, "attention_dropout must be a finite number from 0 to 1"),
        ("llama", {"hidden_act": 3}, "hidden_act must be a name in quotes"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(model_type: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadFile, match=said):
        config(model_type, **values)


def test_mistral_and_qwen2_round_an_uneven_head_down_as_transformers_does() -> None:
    assert config("mistral", hidden_size=66).head_dim == 16
    assert config("qwen2", hidden_size=66).head_dim == 16


def test_layers_of_different_shapes_are_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="use trace"):
        config("llama", per_layer_config={"0": {"intermediate_size": 64}})


def test_a_familys_own_numbers_stay_within_reach() -> None:
    assert config("mistral", sliding_window=4096).fields.integer("sliding_window") == 4096


@pytest.mark.parametrize(
    "model", [model for model in models() if model.config["model_type"] in READERS], ids=lambda m: m.name
)
def test_every_model_of_the_catalog_is_read(model: Model) -> None:
    read = READERS[model.config["model_type"]](model)
    assert read.heads * read.head_dim > 0


HOSTILE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from(list(READERS)), st.data())
def test_a_hostile_config_is_read_or_refused_in_one_line(model_type: str, data: st.DataObject) -> None:
    keys = [
        *LLAMA,
        *BLOOM,
        "head_dim",
        "tie_word_embeddings",
        "attention_dropout",
        "hidden_act",
        "use_cache",
        "text_config",
    ]
    hostile = data.draw(
        st.dictionaries(st.sampled_from([key for key in keys if key != "model_type"]), HOSTILE, max_size=4)
    )
    try:
        read = config(model_type, **hostile)
    except MemcalcError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert (
            min(read.hidden, read.layers, read.heads, read.kv_heads, read.head_dim, read.intermediate, read.vocab) > 0
        )
        assert read.heads % read.kv_heads == 0
