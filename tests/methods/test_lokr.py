"""LoKr: a Kronecker product, whose factors may be of low rank themselves."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.importers import peft
from memcalc.methods.lokr import LoKr, _factors
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, 32 * 64 + 8 * (64 + 96)),  # 2048 = 32 * 64, 6144 = 64 * 96
        ({"rank": 64}, 64 * 32 + 96 * 64),
        ({"decompose_both": True}, 8 * (32 + 64) + 8 * (64 + 96)),
        ({"decompose_factor": 4}, 4 * 4 + 8 * (512 + 1536)),
    ],
    ids=str,
)
def test_what_is_not_of_low_rank_trains_whole(options: dict[str, Any], numbers: int) -> None:
    recording = estimating.record(Workload.of("1.3b", "lokr", seq_len=16, **options))
    assert recording.trainable_params == 24 * numbers


def test_a_width_has_pefts_factors() -> None:
    from peft.tuners.lokr.layer import factorization

    for width in (*range(1, 130), 2048, 28672):
        for wanted in (-1, 0, 1, 2, 3, 4, 5, 16, 60):
            assert _factors(width, wanted) == factorization(width, wanted), (width, wanted)


@pytest.mark.parametrize("model_type", ["qwen2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "rank": 2, "decompose_both": True},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "rank": 1},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "decompose_factor": 5},
        {"amp": "bf16", "checkpointing": True, "rank": 2, "rank_dropout": 0.1, "rank_dropout_scale": True},
        {"autocast_adapter_dtype": False, "rank_dropout": 0.1, "rank": 1, "decompose_both": True},
        {"amp": "bf16", "batch": 1, "mode": "inference", "module_dropout": 0.1, "decompose_factor": 4},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "lokr", **options))


def test_an_initialization_of_lycoris_changes_nothing() -> None:
    config = {"peft_type": "LOKR", "r": 4, "init_weights": "lycoris", "decompose_factor": -1}
    assert peft.method_of(config) == ("lokr", LoKr(rank=4))
