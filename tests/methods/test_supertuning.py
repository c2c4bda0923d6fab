"""Super-Tuning: what trains and is saved, what it cannot go with, and its stream."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload
from memcalc.tracing.record import record
from tests.methods.likeness import assert_alike
from tests.tiny import tiny
from tests.tracing.steps import steps_of

ENTRIES = (64 * 64, 64 * 32)  # of tests/tiny.py: q_proj, v_proj


@pytest.mark.parametrize("saved", [True, False])
def test_a_share_of_the_entries_trains_and_its_places_are_saved_if_asked(saved: bool) -> None:
    w = tiny("llama", "supertuning", sparsity=0.9, rank=3, save_precomputed_indices=saved)
    recording = estimating.record(w)
    entries = 3 * sum(int(count * (1 - 0.9)) for count in ENTRIES)
    assert recording.trainable_params == entries + 3 * 3 * ((64 + 64) + (64 + 32))
    assert recording.checkpoint_bytes == 4 * (recording.trainable_params + saved * entries)


@pytest.mark.parametrize(
    ("model_type", "options", "said"),
    [
        ("gpt2", {}, "is a Conv1D"),
        ("llama", {"sparsity": 0.9999}, "leaves no entry of"),
        ("llama", {"quant": "nf4"}, "--quant cannot go with --method supertuning"),
        ("llama", {"lora_alpha": 4.0}, "--lora-alpha needs a --rank"),
        ("llama", {"sparsity": 1.0}, "--sparsity must be at least 0 and below 1"),
    ],
)
def test_what_it_cannot_go_with_is_refused(model_type: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidWorkload, match=said):
        estimating.record(tiny(model_type, "supertuning", **options))


def test_trace_does_not_multiply_by_codes_of_eight_bits() -> None:
    with pytest.raises(InvalidWorkload, match="--quant int8 cannot go with SUPERTUNING"):
        record(tiny("llama", "supertuning", quant="int8"))


def test_what_is_made_on_meta_takes_the_weights_dtype_as_it_does_on_a_device(monkeypatch: Any) -> None:
    monkeypatch.setattr("memcalc.tracing.record.refuse", lambda w, real: None)
    w = tiny("llama", "supertuning", rank=2, device="cpu", history="none", autocast_adapter_dtype=False)
    difference = first_difference(steps_of(record(w).timeline), steps_of(record(w, "cpu").timeline), ("meta", "cpu"))
    assert difference is None, difference


@pytest.mark.parametrize("model_type", ["llama", "opt", "falcon"])
@pytest.mark.parametrize(
    "options",
    [
        {"loop": "plain", "amp": "bf16", "batch": 1, "rank": 2, "target": "all-linear"},
        {"checkpointing": True, "padded": True, "grad_accum": 2, "autocast_adapter_dtype": False},
        {"checkpointing": True, "reentrant": True, "rank": 3, "lora_dropout": 0.1, "dtype": "fp32", "amp": "bf16"},
        {"mode": "inference", "rank": 2},
        {"mode": "inference", "rank": 2, "merged": True},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "supertuning", **options))
