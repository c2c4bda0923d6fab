from types import SimpleNamespace
from typing import Any

import pytest

from memcalc.errors import NotModelled
from memcalc.profiling.device import no_cuda, open_device
from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.memory import Accelerator, Metal
from tests.profiling.fakes import FakeCuda


def torch_with(*, cuda: str | None, available: bool) -> Any:
    return SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: available))


def test_why_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert no_cuda(torch_with(cuda="13.0", available=True)) == ""
    assert no_cuda(torch_with(cuda=None, available=True)) == ""  # AMD's
    assert "built without CUDA" in no_cuda(torch_with(cuda=None, available=False))
    assert "no driver" in no_cuda(torch_with(cuda="13.0", available=False))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in no_cuda(torch_with(cuda="13.0", available=False))


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_a_device_that_is_not_here_is_refused_with_another_way(kind: str) -> None:
    with pytest.raises(NotModelled, match="trace"):
        open_device(kind)


def test_metal_tells_what_is_allocated_and_no_peak() -> None:
    backend = SimpleNamespace(current_allocated_memory=lambda: 5, driver_allocated_memory=lambda: 9)
    levels = Metal(backend).levels()
    assert (levels.allocated, levels.allocated_peak, levels.reserved, levels.reserved_peak) == (5, None, 9, None)
    with pytest.raises(Unmeasurable):
        Metal(backend).record(True)


def test_a_backend_that_does_not_record_gives_its_reason() -> None:
    def refuses(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("cudaMallocAsync does not yet support recordHistory\nand more")

    cuda = FakeCuda()
    cuda.memory._record_memory_history = refuses
    with pytest.raises(Unmeasurable, match=r"recordHistory$"):
        Accelerator(cuda).record(True)


def test_events_count_births_and_releases() -> None:
    cuda = FakeCuda()
    cuda.malloc(1, 100)
    cuda.malloc(2, 100)
    cuda.free(1)
    levels = Accelerator(cuda).levels()
    assert levels.events == 3
    assert levels.allocated == 512
    assert levels.allocated_peak == 1024


@pytest.mark.gpu
def test_the_names_that_a_fake_device_has_are_those_of_torch_cuda() -> None:
    import torch

    memory = open_device("cuda").memory
    described = memory.describe()
    assert described["name"] == torch.cuda.get_device_name()
    memory.record(True)
    before = memory.levels().events
    kept = torch.empty(1000, device="cuda")
    levels = memory.levels()
    _, entries = memory.snapshot()
    memory.record(False)
    assert before is not None
    assert levels.events == before + 1
    assert entries[-1]["size"] == kept.untyped_storage().nbytes()
