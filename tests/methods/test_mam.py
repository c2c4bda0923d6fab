"""Mix-and-match adapters: peft's prefix and parallel adapters of our own at once."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


def test_both_parts_train() -> None:
    both = estimating.record(tiny("llama", "mam", virtual_tokens=5, encoder_hidden_size=7, bottleneck=3))
    prefix = estimating.record(tiny("llama", "prefix_tuning", virtual_tokens=5, encoder_hidden_size=7))
    adapters = estimating.record(tiny("llama", "parallel_adapter", bottleneck=3))
    for field in ("trainable_params", "checkpoint_bytes"):
        assert getattr(both, field) == getattr(prefix, field) + getattr(adapters, field) > 0


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"amp": "bf16", "loop": "plain", "grad_accum": 2},
        {"dtype": "fp32", "prefix_projection": False, "non_linearity": "silu"},
        {"quant": "nf4", "checkpointing": False},
        {"mode": "inference", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "mam", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottleneck": 4, "reduction_factor": 8}, "--bottleneck and --reduction-factor are one choice"),
        ({"checkpointing": True}, "--checkpointing"),
        ({"mode": "inference", "merged": True}, "--merged"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        tiny("llama", "mam", **options)
