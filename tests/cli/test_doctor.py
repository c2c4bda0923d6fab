import json
from typing import Any

import pytest

import memcalc
from memcalc.profiling import machine
from memcalc.profiling.nvml import Nvml
from memcalc.tracing import private_api
from tests.cli.running import run
from tests.profiling.fakes import FakeCuda, FakeNvml


def test_json_says_for_each_thing_whether_it_can_be_done_and_why_not() -> None:
    result = run("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["schema"] == "memcalc.doctor/1"
    assert found["can"]["estimate"] is True
    assert {name for name, can in found["can"].items() if not can} == found["obstacles"].keys()
    assert {name for name, value in found["facts"].items() if value is None} == found["unavailable"].keys()
    assert {"python", "torch", "transformers", "peft", "bitsandbytes", "driver", "disk_free"} <= found["facts"].keys()


def test_the_page_says_what_the_json_says() -> None:
    found, page = json.loads(run("doctor", "--json").out), run("doctor").out
    assert page.startswith(f"memcalc {memcalc.__version__}\n")
    for name, can in found["can"].items():
        assert f"  {'yes' if can else 'no ':<5}{name}" in page
    for reason in (*found["obstacles"].values(), *found["unavailable"].values()):
        assert reason in page


def test_what_trace_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_api, "missing", lambda: "torch._C.x")
    obstacles = json.loads(run("doctor", "--json").out)["obstacles"]
    assert obstacles["trace"] == obstacles["profile --device cpu"] == "this torch lacks torch._C.x"


def test_a_self_test_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> str:
        raise AttributeError("no such name\nmore")

    assert machine.examine(breaks).obstacles["trace"] == "the self-test fails: no such name"


@pytest.mark.parametrize("missing", ["torch", "peft"])
def test_without_a_library_only_what_needs_it_cannot_be_done(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine._version

    def version(package: str) -> str:
        return there("no-such-package" if package == missing else package)

    monkeypatch.setattr(machine, "_version", version)
    found = machine.examine(lambda: "")
    assert found.obstacles["estimate"] == ""
    assert missing in found.obstacles["trace"]
    assert ("cuda" in found.facts.values) == (missing != "torch")


def test_missing_rights_are_told_apart_from_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", _properties)
    fake = FakeNvml(FakeCuda(), 1)
    fake.refused.add("nvmlDeviceGetComputeRunningProcesses")
    found = machine.examine(lambda: "", Nvml(fake))
    assert found.obstacles["profile --device cuda"] == ""
    assert found.obstacles["profile: memory of the card"] == ""
    assert "Insufficient Permissions" in found.obstacles["profile: memory of the process"]
    assert found.facts.values["devices"] == [{"name": "Fake 9000", "capability": "9.0", "memory": 80 * 2**30}]
    assert found.facts.values["driver"] == "570.00"


def _properties(index: int) -> Any:
    properties = FakeCuda().get_device_properties(index)
    properties.total_memory = 80 * 2**30
    return properties
