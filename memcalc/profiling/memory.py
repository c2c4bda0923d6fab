"""An allocator's counters: torch.cuda's or torch.xpu's statistics, or the little that torch.mps tells."""

# ruff: noqa: SLF001 - torch's memory history has private names only

from typing import Any, NamedTuple, Protocol

from memcalc.profiling.facts import Unmeasurable


class Levels(NamedTuple):
    """What torch's allocator holds now, in bytes, and the most since the last reset; None where it does not count."""

    allocated: int
    allocated_peak: int | None
    reserved: int
    reserved_peak: int | None
    events: int | None  # allocations and releases since the process began
    retries: int | None  # times the cache was emptied because the device was full


class Memory(Protocol):
    """The allocator of one device."""

    def levels(self) -> Levels: ...
    def reset_peaks(self) -> None: ...
    def empty_cache(self) -> None: ...
    def synchronize(self) -> None: ...
    def describe(self) -> dict[str, Any]:
        """Name, capability and whatever else the backend tells of the device; creates the context."""

    def record(self, on: bool, *, stacks: bool = False) -> None:
        """Begin or end to record every allocation and release. Raises Unmeasurable."""

    def snapshot(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """PyTorch's memory snapshot, and what was recorded on this device. Raises Unmeasurable."""


class Accelerator:
    """The caching allocator behind torch.cuda or torch.xpu, which have the same names; `backend` is that module.

    Source: torch 2.13, torch/cuda/memory.py, torch/xpu/memory.py.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def levels(self) -> Levels:
        stats = self._backend.memory_stats()
        return Levels(
            allocated=stats["allocated_bytes.all.current"],
            allocated_peak=stats["allocated_bytes.all.peak"],
            reserved=stats["reserved_bytes.all.current"],
            reserved_peak=stats["reserved_bytes.all.peak"],
            events=_events(stats),
            retries=stats.get("num_alloc_retries"),
        )

    def reset_peaks(self) -> None:
        self._backend.reset_peak_memory_stats()

    def empty_cache(self) -> None:
        self._backend.empty_cache()

    def synchronize(self) -> None:
        self._backend.synchronize()

    def describe(self) -> dict[str, Any]:
        _, total = self._backend.mem_get_info()  # the first call creates the context, and allocates nothing
        properties = self._backend.get_device_properties(self._backend.current_device())
        major, minor = getattr(properties, "major", None), getattr(properties, "minor", None)
        return {
            "name": properties.name,
            "capability": None if major is None else f"{major}.{minor}",
            "sm_count": getattr(properties, "multi_processor_count", None),
            "uuid": str(getattr(properties, "uuid", "")).removeprefix("GPU-"),
            "total": total,
        }

    def record(self, on: bool, *, stacks: bool = False) -> None:
        try:
            record = self._backend.memory._record_memory_history
            if on:
                record("all", context="alloc" if stacks else None, stacks="python")
            else:
                record(None)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise Unmeasurable(f"this torch does not record its allocations: {_first_line(error)}") from None

    def snapshot(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        try:
            found: dict[str, Any] = self._backend.memory._snapshot()
            return found, found["device_traces"][self._backend.current_device()]
        except (AttributeError, RuntimeError) as error:
            raise Unmeasurable(f"this torch takes no snapshot of its allocator: {_first_line(error)}") from None


class Metal:
    """torch.mps tells what is allocated now, and no peak. `backend` is that module.

    Source: torch 2.13, torch/mps/__init__.py.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def levels(self) -> Levels:
        allocated, reserved = self._backend.current_allocated_memory(), self._backend.driver_allocated_memory()
        return Levels(allocated, None, reserved, None, None, None)

    def reset_peaks(self) -> None:
        """There are none."""

    def empty_cache(self) -> None:
        self._backend.empty_cache()

    def synchronize(self) -> None:
        self._backend.synchronize()

    def describe(self) -> dict[str, Any]:
        total = self._backend.recommended_max_memory()
        return {"name": "mps", "capability": None, "sm_count": None, "uuid": "", "total": total}

    def record(self, on: bool, *, stacks: bool = False) -> None:
        raise Unmeasurable("torch.mps does not record its allocations")

    def snapshot(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        raise Unmeasurable("torch.mps takes no snapshot of its allocator")


def _events(stats: dict[str, Any]) -> int | None:
    """Each adds one line to the recorded history: c10/cuda/CUDACachingAllocator.cpp, alloc_found_block and free.

    The other backend, cudaMallocAsync, counts neither and records nothing.
    """
    if "allocation.all.allocated" not in stats:
        return None
    return int(stats["allocation.all.allocated"]) + int(stats["allocation.all.freed"])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
