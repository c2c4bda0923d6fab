"""Which layers a target names, as peft finds them."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc import estimating, families
from memcalc.anatomy import ALL_LINEAR, DEFAULT_TARGETS, Anatomy, match_targets
from memcalc.errors import InvalidWorkload
from tests.tiny import tiny, written

_PARTS: Final = ("layers", "0", "10", "self_attn", "q_proj", "v_proj", "proj", "mlp", "up_proj", "lm_head")
NAMES: Final = st.lists(st.sampled_from(_PARTS), min_size=1, max_size=4).map(".".join)


def _of(linears: list[str]) -> Anatomy:
    return Anatomy("llama", tuple(f"{name}.weight" for name in linears), tuple(linears), "lm_head", "layers", 11)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.lists(NAMES, min_size=1, max_size=3))
def test_a_name_or_a_suffix_of_whole_parts_adapts_what_peft_adapts(linears: list[str], wanted: list[str]) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig(target_modules=wanted)
    real = {name for name in linears if check_target_module_exists(config, name)}
    if real:
        assert match_targets(tuple(wanted), _of(linears)) == real
    else:
        with pytest.raises(InvalidWorkload, match="--target"):
            match_targets(tuple(wanted), _of(linears))


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_all_linear_is_every_one_but_the_head(linears: list[str]) -> None:
    assert match_targets((ALL_LINEAR,), _of(linears)) == set(linears) - {"lm_head"}


def test_one_unknown_name_among_known_ones_is_no_error() -> None:
    assert match_targets(("q_proj", "nowhere"), _of(["a.q_proj"])) == {"a.q_proj"}


def test_a_name_that_matches_nothing_is_answered_with_those_that_are_there() -> None:
    with pytest.raises(InvalidWorkload, match="this model has k_proj, q_proj"):
        match_targets(("query",), _of(["a.q_proj", "b.k_proj", "b.q_proj"]))


@pytest.mark.parametrize("model_type", DEFAULT_TARGETS)
def test_the_defaults_are_pefts_where_it_has_any(model_type: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFTS

    assert list(DEFAULT_TARGETS[model_type]) == PEFTS.get(model_type, list(DEFAULT_TARGETS[model_type]))


@pytest.mark.parametrize("model_type", written())
def test_every_family_has_default_targets_that_match(model_type: str) -> None:
    w = tiny(model_type, "lora")
    loaded = estimating.write(w, *estimating.family_of(w))[2]
    assert loaded.model.targets
    assert families.find(model_type).HEAD not in loaded.model.targets


@pytest.mark.parametrize("option", [{"rank": 65}, {"rank": 65, "target": "all-linear"}])
def test_a_rank_above_a_matrix_is_refused_with_the_matrix(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkload, match=r"--rank 65 is above the 64 x 64 matrix of model\.layers\.0\.self_attn"):
        estimating.record(tiny(**option))


def test_a_rank_as_large_as_the_smallest_matrix_is_taken() -> None:
    estimating.record(tiny(rank=32))
    with pytest.raises(InvalidWorkload, match="at most 32"):
        estimating.record(tiny(rank=33))
