"""PiSSA: what loading makes of each target's weight."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.methods.lora import Lora
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"target": "all-linear", "checkpointing": True},
        {"init_lora_weights": "pissa_niter_2", "target": "all-linear", "amp": "bf16", "lr_ratio": 4},
        {"dtype": "fp32", "init_lora_weights": "pissa_niter_0"},
        {"dtype": "fp16", "use_dora": True, "checkpointing": True, "reentrant": True},
        {"autocast_adapter_dtype": False, "mode": "inference", "load": "device-map"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "pissa", **options))


def test_the_weight_is_a_new_one_in_its_own_dtype() -> None:
    """Each target's 64 x 64 numbers are freed in loading, and stand there again."""
    recording = estimating.record(tiny("llama", "pissa", target="o_proj"))
    timeline = recording.timeline
    end = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    born = [event for event in timeline.events[:end] if event >= 0]
    weights = [row for row in born if timeline.categories[row] == "weights" and "o_proj" in timeline.label(row)]
    assert [timeline.nbytes[row] for row in weights] == [2 * 64 * 64] * 6
    assert sum(~row in timeline.events[:end] for row in weights) == 3


def test_loading_needs_five_matrices_in_fp32_at_once() -> None:
    """The copy, U, V, the product, what is left; and cuBLAS's workspace, which is there from here on."""
    changes = {"hidden_size": 1024, "num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
    lora, pissa = (
        estimating.estimate(tiny("llama", method, config_changes=changes, target="o_proj")).phases[0].allocated_peak
        for method in ("lora", "pissa")
    )
    assert (pissa or 0) - (lora or 0) == pytest.approx(5 * 4 * 1024**2 + 8_519_680, rel=0.002)


def test_a_peft_config_says_how_it_is_decomposed() -> None:
    config = {"peft_type": "LORA", "init_lora_weights": "pissa_niter_16"}
    w = peft.workload("1.3b", config)
    assert (w.method_name, w.method) == ("pissa", Lora(init_lora_weights="pissa_niter_16"))
    assert (w.method.peft_config() or {})["init_lora_weights"] == "pissa_niter_16"
    with pytest.raises(InvalidWorkload, match="--method pissa means"):
        tiny("llama", "pissa", init_lora_weights="gaussian")


@pytest.mark.parametrize(
    ("producer", "match"),
    [(estimated, "--init-lora-weights pissa cannot go with --quant"), (traced, "Please initialize PiSSA under")],
)
def test_a_packed_weight_is_refused(producer: Callable[[Workload], Recording], match: str) -> None:
    with pytest.raises(InvalidWorkload, match=match):
        producer(tiny("llama", "pissa", quant="nf4"))


@pytest.mark.parametrize(
    ("init", "error", "match"),
    [("olora", NotModelled, "memcalc trace runs peft's"), ("pissa_niter_", InvalidWorkload, "is not one of")],
)
def test_other_initializations_are_not_taken(init: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        tiny("llama", "lora", init_lora_weights=init)


def test_trace_runs_another_by_pefts_config() -> None:
    plain = tiny("llama", config_changes={"num_hidden_layers": 1})
    config = {"peft_type": "LORA", "init_lora_weights": "olora", "target_modules": ["q_proj"]}
    w = peft.workload(plain.model, config, batch=1, seq_len=8)
    assert traced(w).trainable_params == 8 * (64 + 64)
