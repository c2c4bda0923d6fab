"""OFT: sizes of blocks, and what a rotation of the input costs."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.oft import Oft
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_blocks_of_a_fused_attention_train() -> None:
    """64 blocks of 32 over a width of 2048: 496 numbers each."""
    assert estimating.record(Workload.of("1.3b", "oft", seq_len=16)).trainable_params == 24 * 64 * 496
    shared = estimating.record(Workload.of("1.3b", "oft", seq_len=16, block_share=True))
    assert shared.trainable_params == 24 * 496


@pytest.mark.parametrize("width", [64, 176, 97])
@pytest.mark.parametrize("wanted", [1, 7, 12, 32, 60, 96, 500])
def test_a_block_is_the_nearest_divisor(width: int, wanted: int) -> None:
    from peft.tuners.oft.layer import OFTLayer

    fits = width % wanted == 0
    nearest = wanted if fits else OFTLayer.adjust_oft_parameters(None, width, wanted)
    assert Oft(oft_block_size=wanted)._blocks(width) == (width // nearest, nearest)
    assert Oft(r=wanted)._blocks(width) == (nearest, width // nearest)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "r": 4, "target": "all-linear"},
        {"checkpointing": True, "reentrant": True, "loop": "plain"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "block_share": True, "r": 4},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "oft_only", "attention": "eager"},
        {"oft_block_size": 8, "num_cayley_neumann_terms": 3, "batch": 1, "mode": "inference"},
        {"use_cayley_neumann": False, "checkpointing": True, "oft_block_size": 8},
        {"use_cayley_neumann": False, "amp": "bf16", "autocast_adapter_dtype": False, "oft_block_size": 8},
        {"use_cayley_neumann": False, "checkpointing": True, "oft_block_size": 1},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "oft", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_conv1d_is_refused_as_peft_refuses_it(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match=r"peft refuses this: .*Conv1D"):
        producer(tiny("gpt2", "oft"))


def test_a_packed_conv1d_is_a_linear_layer() -> None:
    assert_alike(tiny("gpt2", "oft", quant="nf4"))


def test_a_count_and_a_size_are_one_choice() -> None:
    with pytest.raises(InvalidWorkload, match="--r and --oft-block-size are one choice"):
        tiny("llama", "oft", r=4, oft_block_size=16)


def test_what_is_not_written_is_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="--coft: memcalc trace runs it"):
        estimating.record(tiny("llama", "oft", coft=True))
