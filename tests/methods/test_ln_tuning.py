"""LN tuning: which norms are copied, in which dtype, and that copies act in their place."""

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.ln_tuning import LnTuning
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny, written


def test_two_norms_of_each_layer_and_the_last_one_are_copied() -> None:
    hidden, layers = 2048, 24
    recording = estimating.record(Workload.of("1.3b", "ln_tuning"))
    assert recording.trainable_params == 2 * hidden * (2 * layers + 1)
    assert recording.total_params == 1_303_111_680 + recording.trainable_params


@pytest.mark.parametrize("model_type", written())
def test_the_defaults_are_pefts_where_it_has_any(model_type: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING as PEFTS

    mine = list(LnTuning().default_targets(model_type))
    assert mine
    assert mine == PEFTS.get(model_type, mine)
    assert estimating.record(tiny(model_type, "ln_tuning")).trainable_params


def test_copies_stay_in_the_bases_dtype() -> None:
    recording = estimating.record(tiny("llama", "ln_tuning", dtype="fp16"))
    assert recording.checkpoint_bytes == 2 * recording.trainable_params
    raised = estimating.record(tiny("llama", "ln_tuning", dtype="fp16", quant="nf4"))
    assert raised.checkpoint_bytes == 4 * raised.trainable_params


def test_copies_over_a_packed_base_have_gradients_that_a_scaler_takes() -> None:
    assert_alike(tiny("llama", "ln_tuning", dtype="fp16", amp="fp16", quant="nf4"))


def test_what_cannot_be_copied_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match=r"--target 'nowhere' matches none of .* input_layernorm"):
        estimating.record(tiny("llama", "ln_tuning", target="nowhere"))
    with pytest.raises(NotModelled, match=r"copy of the whole model\.layers\.0\.mlp"):
        estimating.record(tiny("llama", "ln_tuning", target="mlp"))
    with pytest.raises(NotModelled, match=r"copy of the packed model\.layers\.0\.self_attn\.q_proj"):
        estimating.record(tiny("llama", "ln_tuning", target="q_proj", quant="nf4"))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "padded": True},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"dtype": "fp32", "amp": "bf16", "checkpointing": True, "reentrant": True, "attention": "eager"},
        {"target": "all-linear", "mode": "inference"},
        {"quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "ln_tuning", **options))
