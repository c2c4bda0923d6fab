"""What holds for every workload, whatever the figures are."""

from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memcalc import estimating
from memcalc.allocator import Replay, replay
from memcalc.optimizers import OPTIMIZERS
from memcalc.timeline import Timeline
from memcalc.units import MIB
from tests.tiny import tiny

WIDE: Final = {"hidden_size": 256, "intermediate_size": 640, "num_attention_heads": 8, "vocab_size": 4000}
FAMILIES: Final = st.sampled_from(["llama", "qwen2", "bloom", "gemma2"])
METHODS: Final = st.sampled_from(["lora", "full", "qlora"])


@st.composite
def _settings(draw: st.DrawFn) -> dict[str, Any]:
    """Options that go together with any method, model and length."""
    loop = draw(st.sampled_from(["trainer", "plain"]))
    checkpointing = draw(st.booleans())
    return {
        "loop": loop,
        "checkpointing": checkpointing,
        "reentrant": checkpointing and draw(st.booleans()),
        "optimizer": draw(
            st.sampled_from([name for name, row in OPTIMIZERS.items() if not (row.without_bf16 or row.projects)])
        ),
        "grad_accum": draw(st.integers(1, 2)),
        "padded": draw(st.booleans()),
        "amp": draw(st.sampled_from(["none", "bf16"])),
        "keep_logits": draw(st.sampled_from(["none", "backward", "step", "next"])),
        "history": draw(st.sampled_from(["none", "same", "16,empty"])),
    }


def _peak(model_type: str, method: str, options: dict[str, Any], **more: Any) -> int:
    return estimating.peak_live(tiny(model_type, method, **{**options, **more}))


@settings(max_examples=40)
@given(FAMILIES, METHODS, _settings(), st.integers(1, 6), st.integers(1, 4))
def test_more_sequences_need_no_less(
    model_type: str, method: str, options: dict[str, Any], batch: int, more: int
) -> None:
    assert _peak(model_type, method, options, batch=batch) <= _peak(model_type, method, options, batch=batch + more)


@settings(max_examples=40)
@given(FAMILIES, METHODS, _settings(), st.integers(2, 120), st.integers(1, 60))
def test_longer_sequences_need_no_less_under_one_attention(
    model_type: str, method: str, options: dict[str, Any], length: int, more: int
) -> None:
    options = {**options, "attention": "eager"}
    assert _peak(model_type, method, options, seq_len=length) <= _peak(
        model_type, method, options, seq_len=length + more
    )


@pytest.mark.parametrize("attention", ["sdpa-flash", "efficient", "math", "flash"])
def test_longer_sequences_need_no_less_under_any_kernel(attention: str) -> None:
    """Lengths that a kernel takes in one piece: short ones are split over the card, and splits need room."""

    @settings(max_examples=15)
    @given(st.integers(1, 40), st.integers(1, 20))
    def check(length: int, more: int) -> None:
        options = {"attention": attention, "dtype": "bf16", "batch": 3}
        shorter = _peak("llama", "lora", options, seq_len=8 * length)
        assert shorter <= _peak("llama", "lora", options, seq_len=8 * (length + more))

    check()


@settings(max_examples=40)
@given(FAMILIES, st.sampled_from(["lora", "qlora"]), _settings(), st.integers(1, 30), st.integers(1, 2))
def test_a_higher_rank_needs_no_less(
    model_type: str, method: str, options: dict[str, Any], rank: int, more: int
) -> None:
    """States of one width: bitsandbytes keeps those of small tensors in 32 bits, so that a larger one needs less."""
    assume(not options["optimizer"].endswith("8bit"))
    options = {**options, "target": "all-linear"}
    assert _peak(model_type, method, options, rank=rank) <= _peak(model_type, method, options, rank=rank + more)


@settings(max_examples=25)
@given(FAMILIES, METHODS, _settings(), st.integers(1, 4), st.integers(1, 200), st.sampled_from([{}, WIDE]))
def test_levels_stand_in_their_order(
    model_type: str, method: str, options: dict[str, Any], batch: int, length: int, changes: dict[str, Any]
) -> None:
    wider = {} if model_type == "bloom" else changes
    w = tiny(model_type, method, batch=batch, seq_len=length, config_changes=wider, **options)
    recording = estimating.record(w)
    timeline, played = recording.timeline, replay(recording.timeline)
    footprint = estimating.estimate(w)

    assert footprint.at_peak is not None
    assert footprint.peak_reserved is not None
    assert footprint.peak_allocated is not None
    assert sum(footprint.at_peak.values()) == footprint.peak_allocated == played.peak_allocated
    assert played.peak_live <= played.peak_allocated <= played.peak_live + MIB * _large_blocks(timeline, played)
    assert footprint.peak_reserved >= footprint.peak_allocated
    assert estimating.peak_live(w) == footprint.peak_live == played.peak_live
    for phase in footprint.phases:
        assert phase.allocated_end is not None
        assert phase.allocated_peak is not None
        assert phase.reserved_peak is not None
        assert phase.allocated_end <= phase.allocated_peak <= phase.reserved_peak <= footprint.peak_reserved
    assert footprint.peak_allocated == max(phase.allocated_peak or 0 for phase in footprint.phases)


def _large_blocks(timeline: Timeline, played: Replay) -> int:
    """Blocks of the large pool alive at the peak: each may have kept a rest of up to 1 MiB that was not split off."""
    assert played.peak_at is not None
    return sum(played.rounded[row] > MIB for row in timeline.alive_at(played.peak_at + 1))


@settings(max_examples=25)
@given(FAMILIES, METHODS, _settings(), st.booleans())
def test_a_rest_that_is_not_split_off_is_small(
    model_type: str, method: str, options: dict[str, Any], wide: bool
) -> None:
    changes = WIDE if wide and model_type != "bloom" else {}
    played = replay(estimating.record(tiny(model_type, method, config_changes=changes, **options)).timeline)
    for whole, rounded in zip(played.sizes, played.rounded, strict=True):
        rest = whole - rounded
        assert 0 <= rest <= (MIB if rounded > MIB else 0)


@settings(max_examples=30)
@given(
    st.sampled_from(["llama", "qwen2", "gemma2"]), METHODS, st.integers(4, 12), st.integers(64, 200),
    st.sampled_from(["adamw_torch", "adamw_torch_fused", "sgd"]), st.booleans(),
)  # fmt: skip
def test_checkpointing_never_raises_a_peak_of_forward_or_backward(
    model_type: str, method: str, layers: int, length: int, optimizer: str, reentrant: bool
) -> None:
    """From four layers on, where the step peaks before the optimizer: a layer's input is less than what it saves."""
    options: dict[str, Any] = {
        "seq_len": length, "optimizer": optimizer, "kbit_prepare": "none",
        "config_changes": {"num_hidden_layers": layers, "layer_types": None},
    }  # fmt: skip
    plain = estimating.estimate(tiny(model_type, method, **options, checkpointing=False))
    assume(plain.peak_phase in ("forward", "backward"))
    checkpointed = _peak(model_type, method, options, checkpointing=True, reentrant=reentrant)
    assert plain.peak_live is not None
    assert checkpointed <= plain.peak_live


@settings(max_examples=30)
@given(FAMILIES, _settings(), st.integers(1, 3))
def test_what_trains_less_needs_no_more(model_type: str, options: dict[str, Any], batch: int) -> None:
    """With Adam's states: LoRA's are its adapters' alone. Checkpointing costs LoRA the gradient of its input."""
    options = {**options, "optimizer": "adamw_torch", "checkpointing": False, "reentrant": False, "batch": batch}
    assert _peak(model_type, "lora", options) <= _peak(model_type, "full", options)


@settings(max_examples=20)
@given(FAMILIES, METHODS, _settings())
def test_inference_needs_no_more_than_training(model_type: str, method: str, options: dict[str, Any]) -> None:
    less = {"amp": options["amp"], "padded": options["padded"], "mode": "inference", "use_cache": False}
    assert _peak(model_type, method, {}, **less) <= _peak(model_type, method, options)


@settings(max_examples=20)
@given(FAMILIES, METHODS, _settings())
def test_two_estimates_of_one_workload_are_one(model_type: str, method: str, options: dict[str, Any]) -> None:
    w = tiny(model_type, method, **options)
    first, second = estimating.estimate(w).to_json(), estimating.estimate(w).to_json()
    del first["seconds"], second["seconds"]
    assert first == second


@settings(max_examples=20)
@given(METHODS, _settings(), st.sampled_from(["bf16", "fp16"]))
def test_both_halves_of_precision_are_the_same_size_outside_of_attention_in_fp32(
    method: str, options: dict[str, Any], dtype: str
) -> None:
    """CUDA fuses fp16's softmax in fp32, and no other dtype's: fp16 never needs more."""
    options = {**options, "amp": "none", "attention": "eager"}
    assert _peak("llama", method, options, dtype="fp16") <= _peak("llama", method, options, dtype=dtype)


@settings(max_examples=20)
@given(METHODS, _settings(), st.sampled_from(["a100-80gb", "rtx4090", "t4", "h100"]))
def test_a_card_changes_kernels_and_workspaces_alone(method: str, options: dict[str, Any], gpu: str) -> None:
    """Weights, gradients and states at the peak are the same on every card."""
    options = {**options, "attention": "eager"}
    mine, default = (
        estimating.record(tiny("llama", method, **options, gpu=card)).timeline for card in (gpu, "a100-80gb")
    )
    kinds = ("weights", "quantization_state", "adapter", "optimizer_states", "gradients")
    for kind in kinds:
        assert _bytes_of(mine, kind) == _bytes_of(default, kind)


def _bytes_of(timeline: Timeline, category: str) -> list[int]:
    return [size for size, kind in zip(timeline.nbytes, timeline.categories, strict=True) if kind == category]
