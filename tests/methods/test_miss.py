"""MiSS: shards of the input are summed before they are multiplied."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_rank_rows_of_the_outputs_width_train() -> None:
    assert estimating.record(Workload.of("1.3b", "miss", seq_len=16)).trainable_params == 24 * 64 * 3 * 2048
    small = estimating.record(Workload.of("1.3b", "miss", seq_len=16, init_weights="mini", mini_r=8))
    assert small.trainable_params == 24 * 64 * 8


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "rank": 16, "target": "all-linear", "miss_dropout": 0.1},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "rank": 10},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "init_weights": "mini", "mini_r": 4},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "bias": "all", "rank": 24},
        {"batch": 1, "mode": "inference", "rank": 16},
        {"quant": "nf4", "amp": "bf16", "kbit_prepare": "none"},
        {"quant": "nf4", "rank": 16, "target": "all-linear"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "miss", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("model_type", "options"), [("gpt2", {}), ("llama", {"rank": 65}), ("llama", {"init_weights": "mini", "mini_r": 5})]
)
def test_what_peft_refuses_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny(model_type, "miss", **options))


def test_bat_is_left_to_trace() -> None:
    with pytest.raises(NotModelled, match="--init-weights bat: memcalc trace runs it"):
        estimating.record(tiny("llama", "miss", init_weights="bat"))


@pytest.mark.parametrize(("given", "own"), [(True, "balance"), (False, "balance"), ("mini", "mini")])
def test_pefts_config_names_the_variant_by_its_initialization(given: object, own: str) -> None:
    config = {"peft_type": "MISS", "r": 16, "init_weights": given, "mini_r": 4, "target_modules": ["q_proj"]}
    name, method = peft.method_of(config)
    assert (name, method.options()["init_weights"], method.options()["rank"]) == ("miss", own, 16)
