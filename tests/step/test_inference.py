"""One forward over a prompt: the prefill, with adapters beside the weights or merged into them."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import NotModelled
from tests.methods.likeness import assert_alike
from tests.tiny import tiny, written


@pytest.mark.parametrize("model_type", written())
def test_a_merged_model_reads_a_prompt_as_the_real_one_does(model_type: str) -> None:
    assert_alike(tiny(model_type, "lora", mode="inference", merged=True, padded=True, batch=3))


@pytest.mark.parametrize(
    ("model_type", "method", "options"),
    [
        ("llama", "full", {"batch": 1, "seq_len": 1}),
        ("llama", "lora", {"merged": True, "target": "all-linear", "bias": "all"}),
        ("gpt2", "lora", {"merged": True, "dtype": "fp32", "amp": "bf16", "attention": "eager"}),
        ("gpt2", "rslora", {"merged": True, "autocast_adapter_dtype": False, "load": "device-map"}),
        ("gemma2", "qlora", {"amp": "bf16", "padded": True}),
        ("mistral", "full", {"attention": "flash", "padded": True}),
        ("bloom", "prompt_tuning", {"use_cache": False}),
        ("opt", "lora", {"device": "cpu", "dtype": "fp32", "merged": True}),
    ],
)
def test_other_prefills(model_type: str, method: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, method, mode="inference", **options))


def test_merged_adapters_leave_nothing_behind() -> None:
    merged, bare = (
        estimating.record(tiny("llama", method, mode="inference", merged=method == "lora"))
        for method in ("lora", "full")
    )
    end = [recording.timeline.alive_at(len(recording.timeline.events)) for recording in (merged, bare)]
    sizes = [
        sorted(recording.timeline.nbytes[row] for row in rows)
        for recording, rows in zip((merged, bare), end, strict=True)
    ]
    assert sizes[0] == sizes[1]
    assert merged.total_params == bare.total_params
    assert merged.checkpoint_bytes == bare.checkpoint_bytes
    assert merged.trainable_params == 0


@pytest.mark.parametrize(("method", "options"), [("dora", {}), ("hra", {}), ("lora", {"quant": "nf4"})])
def test_what_is_merged_otherwise_is_not_written(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(NotModelled, match="--merged"):
        estimating.estimate(tiny("llama", method, mode="inference", merged=True, **options))


def test_any_depth_is_merged_layer_by_layer() -> None:
    deep = tiny("llama", "lora", mode="inference", merged=True, config_changes={"num_hidden_layers": 7})
    family, c = estimating.family_of(deep)
    whole, _, _ = estimating.write(deep, family, c)
    assert estimating.record(deep).timeline.nbytes == whole.nbytes
    assert estimating.peak_live(deep) == estimating.estimate(deep).peak_live
