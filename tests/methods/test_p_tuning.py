"""P-tuning: what trains, what is saved, cuDNN's LSTM, and its stream."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.kernels import CUDNN_SPACES_LEFT_OUT
from memcalc.methods.p_tuning import PTuning
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

HIDDEN = 64  # of tests/tiny.py
LSTM: Final[dict[str, Any]] = {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 8}


def test_what_makes_the_virtual_tokens_trains_and_they_alone_are_saved() -> None:
    recording = estimating.record(tiny("llama", "p_tuning", virtual_tokens=7, encoder_hidden_size=10))
    assert recording.trainable_params == HIDDEN * 7 + (HIDDEN + 1) * 10 + (10 + 1) * 10 + (10 + 1) * HIDDEN
    assert recording.checkpoint_bytes == 4 * HIDDEN * 7


def test_in_use_the_saved_tokens_are_there_without_what_made_them() -> None:
    for encoder in ("MLP", "LSTM"):
        w = tiny("llama", "p_tuning", virtual_tokens=7, mode="inference", encoder_reparameterization_type=encoder)
        assert estimating.record(w).trainable_params == HIDDEN * 7
        assert_alike(w)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_lstm_runs_both_ways_and_an_mlp_follows(layers: int) -> None:
    w = tiny("llama", "p_tuning", virtual_tokens=3, **LSTM, encoder_num_layers=layers)
    first, others = 2 * 4 * 8 * (HIDDEN + 8 + 2), 2 * 4 * 8 * (2 * 8 + 8 + 2)
    mlp = (2 * 8 + 1) * 2 * 8 + (2 * 8 + 1) * HIDDEN
    recording = estimating.record(w)
    assert recording.trainable_params == HIDDEN * 3 + first + (layers - 1) * others + mlp
    assert recording.checkpoint_bytes == 4 * HIDDEN * 3


def test_the_lstms_weights_are_one_block_and_so_are_their_gradients() -> None:
    timeline = estimating.record(tiny("llama", "p_tuning", **LSTM)).timeline
    whole = 4 * 2 * 4 * 8 * ((HIDDEN + 8 + 2) + (2 * 8 + 8 + 2))
    ends = [timeline.marks[at + 1].at for at, mark in enumerate(timeline.marks) if mark.name in ("load", "backward")]
    for count, end in enumerate(ends, 1):
        assert [timeline.nbytes[row] for row in timeline.alive_at(end)].count(whole) == count


def test_what_cudnn_keeps_for_itself_is_said_to_be_left_out() -> None:
    w = tiny("llama", "p_tuning", **LSTM)
    assert estimating.record(w).warnings == traced(w).warnings == (CUDNN_SPACES_LEFT_OUT,)
    for other in ({}, {"mode": "inference", **LSTM}):
        w = tiny("llama", "p_tuning", **other)
        assert estimating.record(w).warnings == traced(w).warnings == ()


@pytest.mark.parametrize("producer", [estimated, traced])
def test_on_the_cpu_the_lstm_is_onednns(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(NotModelled, match="LSTM cannot go with --device cpu"):
        producer(tiny("llama", "p_tuning", device="cpu", dtype="fp32", **LSTM))


def test_the_mlp_takes_options_of_the_lstm_and_does_nothing_with_them() -> None:
    assert_alike(tiny("llama", "p_tuning", virtual_tokens=7, encoder_num_layers=5, encoder_dropout=0.5))


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


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"history": "none"},
        {"checkpointing": True, "grad_accum": 2, "encoder_num_layers": 1},
        {"checkpointing": True, "reentrant": True, "dtype": "fp32", "amp": "bf16"},
        {"dtype": "fp32", "amp": "fp16", "loop": "plain", "encoder_num_layers": 3, "encoder_dropout": 0.1},
        {"quant": "nf4", "zero_grad": "zero"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_the_lstms_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "p_tuning", **{**LSTM, **options}))
