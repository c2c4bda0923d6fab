from typing import Any

import pytest

from memcalc.footprint import Footprint
from memcalc.planning.predicting import predict
from memcalc.planning.ranges import along
from tests.tiny import tiny


def test_what_is_measured_is_predicted_on_the_same_workload() -> None:
    w = tiny(rank=4)
    predictions = predict(Footprint("profile", {**w.to_json(), "attention_kernel": "flash"}))
    assert isinstance(predictions.estimate, Footprint)
    assert predictions.estimate.workload["rank"] == 4
    assert predictions.workload == w.to_json()
    assert predictions.trace is None


@pytest.mark.parametrize(
    ("workload", "reason"),
    [
        ({}, "needs a model"),
        ({"model": ["x"]}, "--model"),
        ({"model": "/etc/passwd"}, "none of the catalog's"),
        ({"model": "somebody/something"}, "none of the catalog's"),
        ({"model": "llama-3.2-1b", "cls": 1}, "unknown option 'cls'"),
        ({"model": "llama-3.2-1b", "peft_config": [[]]}, "not a peft adapter's config"),
        ({"model": "llama-3.2-1b", "peft_config": {"peft_type": "SHADOW"}}, "memcalc trace runs the real one"),
        ({"model": "llama-3.2-1b", "device": "mps"}, "does not know the allocator"),
    ],
)
def test_what_cannot_be_predicted_has_a_reason(workload: dict[str, Any], reason: str) -> None:
    said = predict(Footprint("profile", workload)).estimate
    assert isinstance(said, str)
    assert reason in said


def test_a_range_goes_upwards_through_the_workload_until_its_card_is_full() -> None:
    w = tiny(batch=3, gpu="100MiB")
    found = list(along(w, "batch"))
    assert [value for value, _ in found][:4] == [1, 2, 3, 4]
    held = [footprint.held for _, footprint in found]
    assert held == sorted(held)
    assert held[-1] > w.gpu.memory_bytes or found[-1][0] == 128
    assert all(level <= 1.5 * w.gpu.memory_bytes for level in held[:-1])
