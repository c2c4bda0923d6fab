"""The card under a run: which one it is, who else is on it, what our process takes beside torch's allocator."""

import os
from collections.abc import Callable

from memcalc.catalog.find import find_gpu
from memcalc.errors import DeviceBusy, UnknownName
from memcalc.kernels import Gpu
from memcalc.profiling.device import Device
from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.nvml import Process, alone, used_by
from memcalc.units import MIB, gib

OTHERS = 256 * MIB  # of processes that are listed: an idle context has more
TAKEN = 1024 * MIB  # of whom, in a container, nobody tells: the driver itself holds up to 0.6 GiB of a large card
SETTINGS = (  # of the environment, that move memory
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
    "TORCH_CUDNN_SDPA_DEPRIORITIZED",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
)


def settings() -> dict[str, str]:
    """The environment's settings that move memory, as far as they are there."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


class Card:
    """Created before torch touches the device, so that the CUDA context can be told apart."""

    def __init__(self, device: Device, facts: Facts, *, shared: bool = True) -> None:
        """Raises DeviceBusy where others use the card and it is not to be `shared`."""
        self.device, self.facts = device, facts
        self._used_before = device.nvml.used_by_card()
        self._processes_before = device.nvml.processes_by_card()
        described = device.memory.describe()  # creates the context
        self.name: str = described["name"]
        self.uuid: str = described["uuid"]
        for name in ("name", "capability", "sm_count", "total"):
            facts.note(name, described[name], f"torch.{device.kind} does not tell it")
        facts.values["environment"] = settings()
        facts.read("driver", device.nvml.driver)
        facts.read("device_memory", lambda: device.nvml.total(self.uuid))
        facts.read("other_processes", lambda: len(self._before()))
        facts.read("others_used_before", self._others)
        facts.read("device_used_before", self._baseline)
        if not shared:
            self._refuse_others()
        facts.read("context_bytes", self.outside_allocator)

    def gpu(self) -> Gpu | None:
        """The card as the catalog knows it, else as the driver describes it; None where it is not NVIDIA's."""
        capability, sm_count = self.facts.values["capability"], self.facts.values["sm_count"]
        if self.device.kind != "cuda" or capability is None or sm_count is None:
            return None
        major, minor = (int(part) for part in capability.split("."))
        try:
            known = find_gpu(self.name)
        except UnknownName:
            known = None
        if known is not None and (known.capability, known.sm_count) == ((major, minor), sm_count):
            return known
        memory = self.facts.values["device_memory"] or self.facts.values["total"]
        return Gpu(f"{memory}B", self.name, (major, minor), sm_count, memory, "given")

    def figures(self) -> dict[str, Callable[[], int]]:
        """What only momentary looks can give."""
        nvml = self.device.nvml
        return {
            "device_used_peak": lambda: nvml.used(self.uuid),
            "process_used_peak": lambda: used_by(nvml.processes(self.uuid), os.getpid()),
        }

    def outside_allocator(self) -> int:
        """Bytes that we take on the card beside what torch's allocator has reserved: the CUDA context, kernels' code.

        What the card has lost since we came, if nobody else computes on it; else what the driver counts as ours.
        """
        nvml, reserved = self.device.nvml, self.device.memory.levels().reserved
        after = nvml.processes(self.uuid)
        if alone(self._before(), after, os.getpid()):
            return nvml.used(self.uuid) - self._baseline() - reserved
        try:
            return used_by(after, os.getpid()) - reserved
        except Unmeasurable as refusal:
            raise Unmeasurable(f"other processes are on the card, and ours cannot be told apart: {refusal}") from None

    def _others(self) -> int:
        """Bytes of the processes that computed on the card before we came, as far as the driver tells."""
        used = [process.used for process in self._before()]
        if None in used:
            raise Unmeasurable("the driver does not tell what a process uses (WDDM)")
        return sum(filter(None, used))

    def _refuse_others(self) -> None:
        values = self.facts.values
        others, baseline = values["others_used_before"] or 0, values["device_used_before"] or 0
        if others > OTHERS or baseline > TAKEN:
            raise DeviceBusy(
                f"others use {self.name}: {gib(max(others, baseline))} were taken before the case began; wait for them "
                "or measure all the same with --shared"
            )

    def _baseline(self) -> int:
        if self.uuid not in self._used_before:
            self.device.nvml.used(self.uuid)  # says why
            raise Unmeasurable("NVML gave no figure before the CUDA context was there")
        return self._used_before[self.uuid]

    def _before(self) -> list[Process]:
        if self.uuid not in self._processes_before:
            self.device.nvml.processes(self.uuid)  # says why
            raise Unmeasurable("NVML listed no processes before the CUDA context was there")
        return self._processes_before[self.uuid]
