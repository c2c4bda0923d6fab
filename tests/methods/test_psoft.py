"""PSOFT: a rotation between the singular vectors of a weight."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled, RunFailed
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("options", "trained"),
    [({}, 8 * 7 // 2 + 2 * 8), ({"psoft_orth": False, "psoft_mag_a": False}, 8 * 8 + 8)],
    ids=["a rotation and two vectors", "any matrix and one vector"],
)
def test_what_trains_and_is_saved_is_of_the_rank_alone(options: dict[str, Any], trained: int) -> None:
    recording = estimating.record(Workload.of("1.3b", "psoft", seq_len=16, rank=8, **options))
    assert (recording.trainable_params, recording.checkpoint_bytes) == (24 * trained, 4 * 24 * trained)


@pytest.mark.parametrize("rooted", [False, True])
def test_every_right_singular_vector_stays_where_cuda_leaves_them_in_rows(rooted: bool) -> None:
    """As large as the weight; else A alone does, as large as B: it is a product or a copy."""
    init = "pissa_init" if rooted else "psoft_init"
    on_cuda, on_cpu = (
        estimated(tiny("llama", "psoft", target="o_proj", rank=4, dtype="fp32", device=device, ab_svd_init=init))
        for device in ("cuda", "cpu")
    )
    for recording, rows in ((on_cuda, 4 if rooted else 64), (on_cpu, 4)):
        timeline = recording.timeline
        end = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
        kept = [timeline.nbytes[row] for row in timeline.alive_at(end) if "o_proj" in timeline.labels[row][0]]
        assert kept.count(4 * rows * 64) == 2 * 3


@pytest.mark.parametrize("model_type", ["llama", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "psoft_dropout": 0.1},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "use_cayley_neumann": True},
        {"dtype": "fp32", "amp": "bf16", "psoft_svd": "lowrank", "psoft_svd_lowrank_niter": 1, "target": "all-linear"},
        {"ab_svd_init": "pissa_init", "psoft_svd": "lowrank", "psoft_svd_lowrank_niter": 0, "psoft_mag_b": False},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False, "ab_svd_init": "pissa_init"},
        {"autocast_adapter_dtype": False, "use_cayley_neumann": True, "num_cayley_neumann_terms": 2},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "psoft", **{"rank": 3, **options}))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_single_vector_lies_by_rows(device: str) -> None:
    options = {"psoft_svd": "lowrank", "target": "v_proj,up_proj", "dtype": "fp32"}
    assert_alike(tiny("llama", "psoft", rank=1, device=device, **options))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_rotation_of_a_pair_is_traces(device: str) -> None:
    assert_alike(tiny("qwen2", "psoft", rank=2, dtype="fp32", device=device))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("model_type", "options"), [("gpt2", {}), ("llama", {"quant": "nf4"}), ("llama", {"rank": 33})]
)
def test_what_peft_cannot_do_is_refused(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any]
) -> None:
    with pytest.raises((InvalidWorkload, RunFailed), match="peft refuses this"):
        producer(tiny(model_type, "psoft", **options))


def test_a_bound_that_acts_by_values_is_left_to_profile() -> None:
    with pytest.raises(NotModelled, match="--cayley-neumann-eps acts by the values"):
        tiny("llama", "psoft", use_cayley_neumann=True, cayley_neumann_eps=0.9)
