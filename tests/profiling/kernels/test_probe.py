from typing import Any

import pytest
import torch

from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.kernels.probe import Inside, Probe, inside
from memcalc.profiling.memory import Accelerator
from tests.profiling.fakes import Counting, FakeCuda


def alloc(address: int, nbytes: int) -> dict[str, Any]:
    return {"action": "alloc", "addr": address, "size": nbytes}


def free(address: int) -> dict[str, Any]:
    return {"action": "free_requested", "addr": address, "size": 0}


def test_blocks_are_told_apart_by_what_becomes_of_them() -> None:
    happened = [alloc(1, 2000), alloc(2, 1000), alloc(3, 600), free(1), alloc(4, 700), free(3)]
    found = inside(happened, {2})
    assert found == Inside(
        births=(2000, 1000, 600, 700),
        outputs=(1000,),
        kept=(700,),  # a workspace
        before=(2000,),
        after=(600,),
        peak=2048 + 1024 + 1024,
    )


def test_what_is_gone_before_the_fullest_moment_does_not_count() -> None:
    found = inside([alloc(1, 100), free(1), alloc(2, 5000), free(2), alloc(3, 300)], {3})
    assert (found.before, found.after, found.peak) == ((5000,), (), 5120)


def test_an_operator_on_a_device_shows_its_output_and_what_it_makes_on_the_way() -> None:
    cuda = FakeCuda()
    cuda.reset_peak_memory_stats()  # tensors count from here on
    with Counting(cuda):
        probe = Probe(Accelerator(cuda))
        x = torch.ones(1000)
        found, result = probe.inside(lambda: (x.exp() + 1) * 2)
    assert result.shape == (1000,)
    assert found.births == (4000, 4000, 4000)
    assert found.outputs == (4000,)
    assert found.before == (4000,)
    assert found.peak == 2 * 4096


def test_each_look_begins_a_record_of_its_own() -> None:
    cuda = FakeCuda()
    cuda.reset_peak_memory_stats()
    with Counting(cuda):
        probe = Probe(Accelerator(cuda))
        x = torch.ones(1000)
        for _ in range(3):
            found, _ = probe.inside(lambda: x + 1)
            assert found.outputs == (4000,)
            assert [entry["action"] for entry in cuda.entries if entry["action"] == "alloc"] == ["alloc"]


def test_a_record_that_is_too_short_is_refused() -> None:
    cuda = FakeCuda()
    probe = Probe(Accelerator(cuda))
    cuda.memory._record_memory_history = lambda *args, **kwargs: None
    cuda.recording = False
    with pytest.raises(Unmeasurable, match="gaps"):
        probe.inside(lambda: cuda.malloc(1, 1), warm=False)
