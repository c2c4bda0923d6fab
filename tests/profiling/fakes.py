"""A fake device: torch.cuda's statistics and pynvml's calls, over whatever real CPU tensors are made meanwhile."""

# ruff: noqa: N802 - pynvml's names

import weakref
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memcalc.allocator import replay
from memcalc.profiling.device import Device
from memcalc.profiling.memory import Accelerator
from memcalc.profiling.nvml import Nvml
from memcalc.timeline import Mark, Timeline
from memcalc.units import GIB, MIB

UUID = "01234567-89ab-cdef-0123-456789abcdef"
CONTEXT = 480 * MIB


class FakeCuda:
    """The names of torch.cuda that profile uses. Blocks are handed out as the replayed allocator would."""

    def __init__(self, total: int = 80 * GIB, name: str = "Fake 9000") -> None:
        self.total, self.name = total, name
        self.timeline = Timeline()
        self.entries: list[dict[str, Any]] = []
        self.rows: dict[int, int] = {}
        self.marks: list[Mark] = [Mark(0, "phase", "0")]
        self.synchronized = 0
        self.recording = False
        self.started = False
        self.reserved = 0  # as of the last look at the statistics
        self.largest: int | None = None  # what is larger is more than the card has left
        self.memory = SimpleNamespace(_record_memory_history=self._record, _snapshot=self._snapshot)

    def malloc(self, address: int, nbytes: int) -> None:
        if self.largest is not None and nbytes > self.largest:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {nbytes} bytes.\nmore lines")
        self.rows[address] = self.timeline.birth(nbytes, "activations", "", "")
        if self.recording:
            self.entries.append({"action": "alloc", "addr": address, "size": nbytes, "frames": []})

    def free(self, address: int) -> None:
        row = self.rows.pop(address)
        self.timeline.death(row)
        if self.recording:
            for action in ("free_requested", "free_completed"):
                self.entries.append({"action": action, "addr": address, "size": self.timeline.nbytes[row]})

    def memory_stats(self) -> dict[str, int]:
        self.timeline.marks = self.marks
        played = replay(self.timeline)
        latest = played.phases[self.marks[-1].name]
        self.reserved = latest.reserved_peak or 0
        alive = sum(played.sizes[row] for row in self.rows.values())
        births = len(self.timeline.nbytes)
        return {
            "allocated_bytes.all.current": alive,
            "allocated_bytes.all.peak": latest.allocated_peak,
            "reserved_bytes.all.current": self.reserved,
            "reserved_bytes.all.peak": self.reserved,
            "allocation.all.allocated": births,
            "allocation.all.freed": births - len(self.rows),
            "num_alloc_retries": 0,
        }

    @property
    def began(self) -> bool:
        return len(self.marks) > 1

    def reset_peak_memory_stats(self) -> None:
        self.marks.append(Mark(len(self.timeline.events), "phase", str(len(self.marks))))

    def empty_cache(self) -> None:
        at = len(self.timeline.events)
        self.marks += [Mark(at, "empty_cache"), Mark(at, "phase", str(len(self.marks) + 1))]
        if self.recording:
            self.entries.append({"action": "segment_free", "addr": 0, "size": 0})

    def synchronize(self) -> None:
        self.synchronized += 1

    def mem_get_info(self) -> tuple[int, int]:
        self.started = True
        return self.total - CONTEXT, self.total

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(name=self.name, major=9, minor=0, multi_processor_count=132, uuid=UUID)

    def _record(self, enabled: str | None, context: str | None = None, stacks: str = "all") -> None:
        """What ends forgets, as c10/cuda/CUDACachingAllocator.cpp, recordHistory, does."""
        self.recording = enabled is not None
        if not self.recording:
            self.entries = []

    def _snapshot(self) -> dict[str, Any]:
        return {"segments": [], "device_traces": [self.entries], "allocator_settings": {"expandable_segments": False}}


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells a fake device of every storage that operators make on the CPU, by its real address, and of its end."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cuda, self.closed = cuda, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {storage.data_ptr() for storage in map(_storage, _tensors(args))}
        for tensor in _tensors(out):
            storage = _storage(tensor)
            address = storage.data_ptr()
            on_device = self.cuda.began  # what was built before lies on the host
            if on_device and address not in known and address not in self.cuda.rows and storage.nbytes():
                self.cuda.malloc(address, storage.nbytes())
                weakref.finalize(storage, self._freed, address).atexit = False
        return out

    def _freed(self, address: int) -> None:
        if not self.closed:
            self.cuda.free(address)


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, tuple | list) else []


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """The names of pynvml that profile uses: one card, with the fake device's process and others on it."""

    NVMLError = NVMLError

    def __init__(self, cuda: FakeCuda, pid: int, others: tuple[tuple[int, int | None], ...] = ()) -> None:
        self.cuda, self.pid, self.others = cuda, pid, others
        self.refused: set[str] = set()
        self.split = 0
        self.uuid = f"GPU-{UUID}"

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self._unless_refused("nvmlSystemGetDriverVersion", "570.00")

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"card {index}"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:
        return self.uuid.encode()

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:
        return self._unless_refused("nvmlDeviceGetMigMode", [self.split, self.split])

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        used = 600 * MIB + sum(nbytes or 0 for _, nbytes in self.others) + self.ours()
        info = SimpleNamespace(used=used, total=self.cuda.total + 512 * MIB)
        return self._unless_refused("nvmlDeviceGetMemoryInfo", info)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:
        listed = [SimpleNamespace(pid=pid, usedGpuMemory=nbytes) for pid, nbytes in self.others]
        if self.cuda.started:
            listed.append(SimpleNamespace(pid=self.pid, usedGpuMemory=self.ours()))
        return self._unless_refused("nvmlDeviceGetComputeRunningProcesses", listed)

    def ours(self) -> int:
        return CONTEXT + self.cuda.reserved if self.cuda.started else 0

    def _unless_refused(self, name: str, value: Any) -> Any:
        if name in self.refused:
            raise NVMLError("Insufficient Permissions")
        return value


def fake_device(cuda: FakeCuda, nvml: FakeNvml | None = None) -> Device:
    """A fake card; its tensors live on the CPU."""
    return Device("cuda", "cpu", Accelerator(cuda), Nvml(nvml, "" if nvml is not None else "no NVML here"))
