"""OSF: a weight's singular values, the small ones of which train."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.anatomy import ALL_LINEAR
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.osf import Osf
from tests.methods.likeness import assert_alike
from tests.tiny import tiny, written


def test_the_small_half_of_the_singular_values_trains() -> None:
    square = estimating.record(tiny("llama", "osf", target="q_proj"))
    assert square.trainable_params == 3 * 32 * (64 + 64 + 1)
    share = estimating.record(tiny("llama", "osf", target="q_proj", effective_rank=0.75))
    assert share.trainable_params == 3 * 16 * (64 + 64 + 1)


@pytest.mark.parametrize("model_type", written())
def test_the_defaults_are_pefts_where_it_has_any(model_type: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING as PEFTS

    assert list(Osf().default_targets(model_type)) == PEFTS.get(model_type, [])
    assert Osf().peft_config()["target_modules"] is None


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom", "phi3"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": ALL_LINEAR, "effective_rank": 8},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "effective_rank": 1.0},
        {"batch": 1, "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "osf", **options))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("effective_rank", [None, 0.04, 63])
def test_a_single_vector_lies_by_rows_and_right_ones_on_cuda(device: str, effective_rank: float | None) -> None:
    options = {"target": "q_proj,v_proj,up_proj,down_proj", "config_changes": {"num_hidden_layers": 1}}
    assert_alike(tiny("llama", "osf", device=device, effective_rank=effective_rank, **options))


@pytest.mark.parametrize("options", [{"dtype": "fp32"}, {"autocast_adapter_dtype": False}])
def test_where_gradients_are_projected_it_is_left_to_trace(options: dict[str, Any]) -> None:
    with pytest.raises(NotModelled, match="memcalc trace runs the rest"):
        estimating.record(tiny("llama", "osf", **options))


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("gpt2", {}, "peft passes over .* a Conv1D"),
        ("llama", {"quant": "nf4"}, "with a packed one"),
        ("llama", {"effective_rank": 0.01}, "keeps 0 of 64 .*: peft asks for one"),
    ],
)
def test_what_cannot_be_is_refused(model_type: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        estimating.record(tiny(model_type, "osf", **options))
