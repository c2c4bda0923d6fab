import os
from collections.abc import Callable
from typing import Any

import pytest

from memcalc.profiling.card import Card
from memcalc.profiling.facts import Facts
from memcalc.profiling.nvml import Process, alone, open_nvml
from memcalc.units import MIB
from tests.profiling.fakes import CONTEXT, FakeCuda, FakeNvml, fake_device

US, THEM = os.getpid(), 424242


def facts_of(*, pid: int = US, others: Any = (), arrange: Callable[[FakeNvml], None] = lambda nvml: None) -> Facts:
    cuda, facts = FakeCuda(), Facts()
    nvml = FakeNvml(cuda, pid, others)
    arrange(nvml)
    Card(fake_device(cuda, nvml), facts)
    return facts


def refuse(*names: str) -> Callable[[FakeNvml], None]:
    return lambda nvml: nvml.refused.update(names)


def test_the_context_is_what_the_card_lost_when_we_came() -> None:
    facts = facts_of()
    assert facts.values["context_bytes"] == CONTEXT
    assert facts.values["other_processes"] == 0
    assert facts.unavailable == {}


def test_beside_others_the_context_is_what_the_driver_counts_as_ours() -> None:
    facts = facts_of(others=((THEM, 300 * MIB),))
    assert facts.values["context_bytes"] == CONTEXT
    assert facts.values["other_processes"] == 1


def test_alone_in_a_container_the_context_is_known_though_our_number_is_not_listed() -> None:
    assert facts_of(pid=77).values["context_bytes"] == CONTEXT


def test_in_a_container_beside_others_the_context_is_not_guessed() -> None:
    facts = facts_of(pid=77, others=((THEM, 300 * MIB),))
    assert facts.values["context_bytes"] is None
    assert "container" in facts.unavailable["context_bytes"]


def test_a_driver_that_tells_no_process_sizes_does_not_matter_while_nobody_else_is_there() -> None:
    assert facts_of(others=()).values["context_bytes"] == CONTEXT
    facts = facts_of(pid=77, others=((US, None),))
    assert facts.values["context_bytes"] is None
    assert "WDDM" in facts.unavailable["context_bytes"]


def test_missing_rights_are_a_reason() -> None:
    facts = facts_of(arrange=refuse("nvmlDeviceGetComputeRunningProcesses"))
    reason = "NVML refuses nvmlDeviceGetComputeRunningProcesses: Insufficient Permissions"
    assert facts.values["context_bytes"] is None
    assert facts.unavailable["other_processes"] == reason
    assert facts.values["device_used_before"] == 600 * MIB


def test_a_card_that_cannot_be_split_is_no_slice() -> None:
    assert facts_of(arrange=refuse("nvmlDeviceGetMigMode")).values["context_bytes"] == CONTEXT


def test_on_a_slice_the_figures_of_the_whole_card_are_not_taken() -> None:
    def split(nvml: FakeNvml) -> None:
        nvml.split = 1

    facts = facts_of(arrange=split)
    assert facts.values["device_memory"] is None
    assert facts.values["context_bytes"] is None
    assert "MIG" in facts.unavailable["device_memory"]


def test_a_device_that_nvml_does_not_know_is_not_mistaken_for_another() -> None:
    def elsewhere(nvml: FakeNvml) -> None:
        nvml.uuid = "GPU-another"

    facts = facts_of(arrange=elsewhere)
    assert facts.values["device_used_before"] is None
    assert "UUID" in facts.unavailable["device_used_before"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [US], True),
        ([], [77], True),  # in a container
        ([], [], False),  # the list does not even show us
        ([], [US, THEM], False),
        ([THEM], [US, THEM], False),
        ([THEM], [US], False),  # who left took something along
        ([THEM], [77], False),
    ],
)
def test_who_is_alone(before: list[int], after: list[int], expected: bool) -> None:
    def listed(pids: list[int]) -> list[Process]:
        return [Process(pid, 1) for pid in pids]

    assert alone(listed(before), listed(after), US) is expected


def test_a_machine_without_a_driver_says_so() -> None:
    facts = Facts()
    facts.read("driver", open_nvml().driver)
    if facts.values["driver"] is None:
        assert "NVML" in facts.unavailable["driver"]
