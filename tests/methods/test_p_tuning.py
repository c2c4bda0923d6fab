"""P-tuning: what trains, what is saved, cuDNN's LSTM, and its stream."""

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.methods.p_tuning import PTuning
from tests.methods.likeness import assert_alike
from tests.producers import traced
from tests.tiny import tiny

HIDDEN = 64  # of tests/tiny.py


def test_what_makes_the_virtual_tokens_trains_and_they_alone_are_saved() -> None:
    recording = estimating.record(tiny("llama", "p_tuning", virtual_tokens=7, encoder_hidden_size=10))
    assert recording.trainable_params == HIDDEN * 7 + (HIDDEN + 1) * 10 + (10 + 1) * 10 + (10 + 1) * HIDDEN
    assert recording.checkpoint_bytes == 4 * HIDDEN * 7


def test_in_use_the_saved_tokens_are_there_without_what_made_them() -> None:
    for encoder in ("MLP", "LSTM"):
        w = tiny("llama", "p_tuning", virtual_tokens=7, mode="inference", encoder_reparameterization_type=encoder)
        assert estimating.record(w).trainable_params == HIDDEN * 7
        assert_alike(w)


def test_cudnns_lstm_is_not_written_and_trace_says_that_it_runs_another() -> None:
    w = tiny("llama", "p_tuning", virtual_tokens=3, encoder_reparameterization_type="LSTM", encoder_hidden_size=8)
    with pytest.raises(NotModelled, match="what cuDNN's LSTM allocates is not known"):
        estimating.record(w)
    recording = traced(w)
    layers = 2 * 4 * 8 * (HIDDEN + 8 + 2) + 2 * 4 * 8 * (2 * 8 + 8 + 2)
    assert recording.trainable_params == HIDDEN * 3 + layers + (16 + 1) * 16 + (16 + 1) * HIDDEN
    assert any("cuDNN" in warning for warning in recording.warnings)
    assert not traced(tiny("llama", "p_tuning")).warnings


def test_a_dropout_of_all_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--encoder-dropout"):
        tiny("llama", "p_tuning", encoder_dropout=1.0)


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    name, method = peft.method_of(
        {
            "peft_type": "P_TUNING", "num_virtual_tokens": 9, "token_dim": 64, "num_layers": 3,
            "num_attention_heads": 4, "num_transformer_submodules": 1, "encoder_reparameterization_type": "LSTM",
            "encoder_hidden_size": 32, "encoder_num_layers": 3, "encoder_dropout": 0.1, "modules_to_save": None,
        }
    )  # fmt: skip
    assert name == "p_tuning"
    assert method == PTuning(9, "LSTM", encoder_hidden_size=32, encoder_num_layers=3, encoder_dropout=0.1)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"padded": True, "batch": 1, "loop": "plain", "use_cache": True},
        {"checkpointing": True, "padded": True},
        {"checkpointing": True, "reentrant": True, "dtype": "fp32", "amp": "bf16"},
        {"quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "p_tuning", **options))
