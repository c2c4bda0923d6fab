"""An 8-bit base (LLM.int8()): estimate writes what bitsandbytes does, as far as no activation is an outlier."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.kernels import NO_OUTLIERS
from tests.methods.likeness import assert_alike
from tests.producers import traced
from tests.tiny import tiny

TWO_LAYERS = {"gpt2": {"n_layer": 2}, "bloom": {"n_layer": 2}}


def _tiny(model_type: str, method: str = "lora", **options: Any) -> Any:
    layers = TWO_LAYERS.get(model_type, {"num_hidden_layers": 2})
    return tiny(model_type, method, quant="int8", config_changes=layers, **options)


@pytest.mark.parametrize(
    ("model_type", "method", "options"),
    [
        ("llama", "lora", {"target": "all-linear"}),
        ("llama", "lora", {"reentrant": True, "dtype": "fp16", "kbit_prepare": "none"}),
        ("qwen2", "lora", {"checkpointing": False, "kbit_prepare": "none", "amp": "bf16"}),
        ("gpt2", "lora", {"bias": "all", "kbit_prepare": "none", "checkpointing": False}),
        ("bloom", "lora", {"dtype": "fp32", "padded": True, "loop": "plain", "grad_accum": 2}),
        ("llama", "dora", {}),
        ("gpt2", "ia3", {}),
        ("llama", "vera", {"checkpointing": False}),
        ("llama", "miss", {}),
        ("llama", "adalora", {}),
        ("gpt2", "hira", {"checkpointing": False, "kbit_prepare": "none", "amp": "bf16"}),
        ("llama", "pvera", {}),
        ("llama", "lokr", {"checkpointing": False}),
        ("opt", "prompt_tuning", {}),
        ("gpt2", "lora", {"mode": "inference"}),
    ],
)
def test_an_8_bit_base_is_bitsandbytes(model_type: str, method: str, options: dict[str, Any]) -> None:
    assert_alike(_tiny(model_type, method, **options))


def test_checkpointing_without_reentry_does_not_free_the_inputs_of_8_bit_layers() -> None:
    """The function's context keeps them as attributes, which no hook of saved tensors sees."""
    lengths: dict[str, Any] = {"seq_len": 128, "batch": 4, "target": "all-linear"}
    peaks = {
        reentrant: estimating.peak_live(_tiny("llama", checkpointing=True, reentrant=reentrant, **lengths))
        for reentrant in (False, True)
    }
    assert peaks[True] < peaks[False]


def test_what_data_decides_is_said() -> None:
    assert NO_OUTLIERS in estimating.record(_tiny("llama")).warnings
    assert NO_OUTLIERS in traced(_tiny("llama")).warnings
    assert estimating.record(tiny("llama", "lora")).warnings == ()


@pytest.mark.parametrize("method", ["boft", "hra", "randlora"])
def test_methods_whose_adapters_are_made_otherwise_are_not_written(method: str) -> None:
    with pytest.raises(NotModelled, match="8-bit"):
        estimating.record(_tiny("llama", method))


def test_inference_mode_forbids_the_cast_of_a_bias() -> None:
    """The cast of Linear8bitLt.forward; a layer norm under autocast hands fp32 to layers with bf16 biases."""
    with pytest.raises(InvalidWorkload, match="inference_mode"):
        estimating.record(_tiny("gpt2", mode="inference", amp="bf16"))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_any_depth_is_the_whole_written_out(checkpointing: bool) -> None:
    deep = tiny(
        "llama", "lora", quant="int8", checkpointing=checkpointing, kbit_prepare="none",
        config_changes={"num_hidden_layers": 7},
    )  # fmt: skip
    family, c = estimating.family_of(deep)
    whole, _, _ = estimating.write(deep, family, c)
    assert estimating.record(deep).timeline.nbytes == whole.nbytes
    assert estimating.peak_live(deep) == estimating.estimate(deep).peak_live
