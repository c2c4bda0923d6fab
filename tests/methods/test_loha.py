"""LoHa: two low-rank matrices, multiplied element by element in every forward; and what its kin LoKr refuses too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_two_pairs_of_factors_train() -> None:
    """A fused layer of 2048 x 6144 numbers."""
    recording = estimating.record(Workload.of("1.3b", "loha", seq_len=16, rank=4))
    assert recording.trainable_params == 24 * 2 * 4 * (2048 + 6144)


@pytest.mark.parametrize("model_type", ["qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear"},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
        {"amp": "bf16", "checkpointing": True, "rank_dropout": 0.1},
        {"autocast_adapter_dtype": False, "rank_dropout": 0.1, "rank": 3},
        {"amp": "bf16", "batch": 1, "mode": "inference", "module_dropout": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "loha", **options))


def test_keys_that_are_not_adapted_take_the_dtype_of_queries_that_are() -> None:
    """In Cohere's rotation: an adapted layer gives its input's dtype, the others autocast's."""
    assert_alike(tiny("cohere", "loha", dtype="bf16", amp="fp16", attention="eager", target="q_proj"))


def test_adapters_in_another_half_precision_than_autocasts_are_refused() -> None:
    """Gradients in fp16 times products in bf16 are fp32, which torch does not multiply by bf16."""
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.mm(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bfloat16))
    with pytest.raises(InvalidWorkload, match="--amp fp16 cannot go with adapters in bf16"):
        estimated(tiny("llama", "loha", dtype="bf16", amp="fp16", autocast_adapter_dtype=False))


_BOTH = pytest.mark.parametrize("method", ["loha", "lokr"])


@_BOTH
@pytest.mark.parametrize("producer", [estimated, traced])
def test_conv1d_is_refused_as_peft_refuses_it(producer: Callable[[Workload], Recording], method: str) -> None:
    with pytest.raises(InvalidWorkload, match=r"peft refuses this: .*Conv1D"):
        producer(tiny("gpt2", method))


@_BOTH
def test_a_packed_weight_has_another_shape(method: str) -> None:
    with pytest.raises(InvalidWorkload, match="--quant cannot go with this --method"):
        estimated(tiny("llama", method, quant="nf4"))


@_BOTH
def test_what_a_draw_decides_is_left_to_trace(method: str) -> None:
    with pytest.raises(NotModelled, match=r"--module-dropout: .*memcalc trace runs one"):
        estimated(tiny("llama", method, module_dropout=0.1))
