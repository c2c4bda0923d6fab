"""AdaLoRA: an update in three parts, a loss of its own, and an allocation of ranks between steps."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload
from memcalc.importers import peft
from memcalc.methods.adalora import AdaLora
from memcalc.recording import Recording, footprint_of
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import PRODUCERS, estimated, traced
from tests.tiny import tiny


def _two_layers(model_type: str) -> dict[str, int]:
    return {"n_layer" if model_type == "gpt2" else "num_hidden_layers": 2}


def test_three_parts_train_and_a_rank_is_counted() -> None:
    recording = estimating.record(Workload.of("1.3b", "adalora", seq_len=16))
    assert recording.trainable_params == 24 * 12 * (2048 + 6144 + 1)
    full = estimating.record(Workload.of("1.3b", "full", seq_len=16))
    assert recording.total_params == full.total_params + recording.trainable_params + 24
    assert recording.checkpoint_bytes == 4 * recording.trainable_params


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "lora_dropout": 0.1, "init_r": 3, "target_r": 2},
        {"dtype": "fp32", "amp": "fp16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"amp": "bf16", "autocast_adapter_dtype": False, "grad_accum": 2, "keep_logits": "step", "bias": "all"},
        {"quant": "nf4", "double_quant": True, "optimizer": "adamw_torch"},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none", "zero_grad": "zero"},
        {"amp": "bf16", "batch": 1, "mode": "inference"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "adalora", config_changes=_two_layers(model_type), **options))


@pytest.mark.parametrize(
    "options",
    [
        {"tinit": 5},  # no rank is taken away yet
        {"delta_t": 2, "history": "same,9,same"},
        {"total_step": 5, "tfinal": 3},  # ranks become final, and what told of them goes
        {"total_step": 5, "tfinal": 3, "history": "same,same"},
        {"init_r": 4, "target_r": 4},  # none to take away
        {"device": "cpu", "dtype": "fp32", "total_step": 2, "history": "same,same"},
    ],
    ids=str,
)
def test_every_step_of_the_schedule_is_pefts(options: dict[str, Any]) -> None:
    assert_alike(tiny("llama", "adalora", config_changes=_two_layers("llama"), **options))


def _states_at_peak(recording: Recording) -> int:
    found = footprint_of(tiny("llama", "adalora"), recording, "estimate").at_peak
    return 0 if found is None else found["optimizer_states"]


@pytest.mark.parametrize("producer", PRODUCERS.values(), ids=PRODUCERS)
def test_three_numbers_for_each_that_trains_are_kept_between_steps(producer: Any) -> None:
    kept = _states_at_peak(producer(tiny("llama", "adalora", optimizer="sgd")))
    assert kept >= 3 * 4 * estimated(tiny("llama", "adalora")).trainable_params
    assert not _states_at_peak(producer(tiny("llama", "adalora", optimizer="sgd", target_r=12)))


def test_few_layers_repeated_are_all_of_them_and_tell_the_peak() -> None:
    w = tiny("llama", "adalora", config_changes={"num_hidden_layers": 7}, checkpointing=True, optimizer="adamw_torch")
    family, c = estimating.family_of(w)
    recording = estimating.record(w)
    difference = first_difference(recording.timeline, estimating.write(w, family, c)[0], ("few", "all"))
    assert difference is None, difference
    assert estimating.peak_live(w) == footprint_of(w, recording, "estimate").peak_live


def test_the_loss_of_its_own_is_the_losss_category() -> None:
    w = tiny("llama", "adalora", amp="bf16")
    mine, real = estimated(w), traced(w)
    assert mine.timeline.categories == real.timeline.categories


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="leave no step between them"):
        tiny("llama", "adalora", total_step=5, tinit=3, tfinal=2)
    with pytest.raises(InvalidWorkload, match="--total-step 1 leaves no step"):
        estimated(tiny("llama", "adalora", total_step=1))


@pytest.mark.parametrize("decay", ["beta1", "beta2"])
def test_averages_that_peft_refuses_are_refused(decay: str) -> None:
    with pytest.raises(InvalidWorkload, match=f"--{decay} must be above 0 and below 1, not 1"):
        tiny("llama", "adalora", **{decay: 1})


def test_loras_rank_in_its_config_means_nothing() -> None:
    config = {"peft_type": "ADALORA", "r": 8, "init_r": 6, "total_step": 50, "deltaT": 2}
    assert peft.method_of(config) == ("adalora", AdaLora(init_r=6, total_step=50, delta_t=2))
