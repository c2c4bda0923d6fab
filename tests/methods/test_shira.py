"""SHiRA: entries of the weight itself train, at places that are kept beside them."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.tracing.record import record
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny
from tests.tracing.steps import steps_of


def test_as_many_entries_train_as_a_lora_has_and_their_places_are_saved() -> None:
    recording = estimating.record(Workload.of("1.3b", "shira", seq_len=16))
    trained = 24 * 32 * (2048 + 3 * 2048)
    assert recording.trainable_params == trained
    assert recording.checkpoint_bytes == (4 + 2 * 4) * trained


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "all-linear"},
        {"batch": 1, "mode": "inference"},
        {"checkpointing": True, "autocast_adapter_dtype": False},
        {"quant": "nf4", "amp": "bf16", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "shira", **{"rank": 2, **options}))


@pytest.mark.parametrize("checkpointing", [{}, {"checkpointing": True}, {"checkpointing": True, "reentrant": True}])
def test_its_step_on_meta_is_that_of_real_tensors(checkpointing: dict[str, Any], monkeypatch: Any) -> None:
    """Sparse tensors and all; what the CPU's kernels do inside is left out on both sides."""
    monkeypatch.setattr("memcalc.tracing.record.refuse", lambda w, real: None)
    w = tiny("llama", "shira", rank=2, dtype="fp32", device="cpu", history="none", **checkpointing)
    difference = first_difference(steps_of(record(w).timeline), steps_of(record(w, "cpu").timeline), ("meta", "cpu"))
    assert difference is None, difference


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(("model_type", "options"), [("gpt2", {}), ("llama", {"rank": 33})])
def test_what_peft_refuses_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny(model_type, "shira", **options))


def test_over_a_base_raised_to_fp32_it_needs_autocast() -> None:
    """The packed weight comes out in half precision; meta's product does not mind, a real one does."""
    with pytest.raises(InvalidWorkload, match="takes one dtype, not fp32, bf16; use --amp"):
        estimated(tiny("llama", "shira", quant="nf4"))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_on_the_cpu_only_real_tensors_tell(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(NotModelled, match="memcalc profile"):
        producer(tiny("llama", "shira", rank=2, dtype="fp32", device="cpu"))
