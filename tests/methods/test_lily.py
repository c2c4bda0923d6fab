"""Lily: matrices that layers share, and that are mixed anew in each forward."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled, RunFailed
from memcalc.recording import Recording, footprint_of
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_all_layers_share_b_and_the_file_holds_it_once_for_each() -> None:
    recording = estimating.record(Workload.of("1.3b", "lily", seq_len=16, rank=8))
    apart = 24 * (8 * 2048 + 2 * 8)
    assert recording.trainable_params == apart + 2 * 8 * 6144
    assert recording.checkpoint_bytes == 4 * (apart + 24 * 2 * 8 * 6144)


def test_so_many_layers_share_an_a() -> None:
    recording = estimating.record(Workload.of("1.3b", "lily", seq_len=16, rank=8, stride_a=5, num_b=4))
    assert recording.trainable_params == 5 * 8 * 2048 + 24 * 4 * 8 + 4 * 8 * 6144
    assert recording.checkpoint_bytes == 4 * 24 * (8 * 2048 + 4 * 8 + 4 * 8 * 6144)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "stride_a": 2, "num_b": 3, "history": "none"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "target": "layers.1.mlp.down_proj,h.2.mlp.dense_h_to_4h"},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False},
        {"quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    """Bloom's twelve linear layers are few enough that none of all-linear shares, llama's 21 are not."""
    assert_alike(tiny(model_type, "lily", **{"rank": 3, **options}))


@pytest.mark.parametrize(
    ("model_type", "layers", "options"),
    [
        ("llama", 6, {}),
        ("llama", 6, {"mode": "inference"}),
        ("qwen2", 5, {"stride_a": 2}),
        ("olmo2", 3, {"dtype": "fp32", "stride_a": 3}),
        ("gpt2", 5, {"quant": "nf4"}),
    ],
    ids=str,
)
def test_what_layers_share_is_shared_at_any_depth(model_type: str, layers: int, options: dict[str, Any]) -> None:
    """Conv1D's packed: these are linear layers of bitsandbytes'."""
    deeper = {"n_layer" if model_type == "gpt2" else "num_hidden_layers": layers}
    assert_alike(tiny(model_type, "lily", config_changes=deeper, rank=4, **options))


def test_opts_mlp_gives_it_a_matrix() -> None:
    assert_alike(tiny("opt", "lily", target="fc1", rank=3))


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_sweeps_find_the_peak_of_all_layers(mode: str) -> None:
    w = tiny("llama", "lily", config_changes={"num_hidden_layers": 6}, mode=mode)
    assert estimating.peak_live(w) == footprint_of(w, estimating.record(w), "estimate").peak_live


@pytest.mark.parametrize("producer", [estimated, traced])
def test_what_peft_cannot_adapt_is_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match="Conv1D"):
        producer(tiny("gpt2", "lily"))


def test_a_choice_of_one_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--num-b 1 leaves nothing to choose from"):
        tiny("llama", "lily", num_b=1)


@pytest.mark.parametrize(
    ("model_type", "options", "why"),
    [
        ("llama", {"target": "q_proj,self_attn.q_proj"}, "by which one Lily shares is chance"),
        ("llama", {"target": [f"layers.{n}.mlp.up_proj" for n in range(20)]}, "with 20 targets"),
        ("gpt2", {"target": "c_proj", "quant": "nf4", "config_changes": {"n_inner": 64}}, "share: memcalc trace"),
    ],
)
def test_sharing_that_depends_on_more_is_left_to_trace(model_type: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(NotModelled, match=why):
        estimated(tiny(model_type, "lily", **options))
