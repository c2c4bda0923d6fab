"""What the NVIDIA driver tells of a card and of the processes on it.

NVML knows cards, torch knows devices: CUDA_VISIBLE_DEVICES renumbers them, so they are matched by UUID.
Source: nvidia-ml-py 13 (pynvml.py), NVML's API reference.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from memcalc.profiling.facts import Unmeasurable

T = TypeVar("T")


class Process(NamedTuple):
    """A process that computes on a card."""

    pid: int  # in the host's numbering, also where we run in a container
    used: int | None  # bytes; None where the driver does not tell (Windows' WDDM)


class Nvml:
    """NVML with every refusal turned into a reason. `api` is the module pynvml, or None where there is none."""

    def __init__(self, api: Any, refusal: str = "") -> None:
        self._api, self._refusal = api, refusal
        self._known: dict[str, Any] = {}  # handles by UUID: they do not change

    def driver(self) -> str:
        """The driver's version."""
        return _text(self._call("nvmlSystemGetDriverVersion"))

    def cards(self) -> list[str]:
        """The UUIDs of all cards."""
        return list(self._cards())

    def used_by_card(self) -> dict[str, int]:
        """Bytes in use on each card, by UUID, whoever uses them. What is refused is left out."""
        return self._of_each(self._used)

    def processes_by_card(self) -> dict[str, list[Process]]:
        """The processes that compute on each card, by UUID. What is refused is left out."""
        return self._of_each(self._processes)

    def used(self, uuid: str) -> int:
        """Bytes in use on a card, whoever uses them."""
        return self._used(self._card(uuid))

    def total(self, uuid: str) -> int:
        """Bytes of a card, as nvidia-smi shows them."""
        card = self._card(uuid)
        self._refuse_slices(card)
        return int(self._call("nvmlDeviceGetMemoryInfo", card).total)

    def processes(self, uuid: str) -> list[Process]:
        """The processes that compute on a card."""
        return self._processes(self._card(uuid))

    def _of_each(self, figure: Callable[[Any], T]) -> dict[str, T]:
        found = {}
        with contextlib.suppress(Unmeasurable):
            for uuid, card in self._cards().items():
                with contextlib.suppress(Unmeasurable):
                    found[uuid] = figure(card)
        return found

    def _processes(self, card: Any) -> list[Process]:
        listed = self._call("nvmlDeviceGetComputeRunningProcesses", card)
        return [Process(int(process.pid), process.usedGpuMemory) for process in listed]

    def _used(self, card: Any) -> int:
        self._refuse_slices(card)
        return int(self._call("nvmlDeviceGetMemoryInfo", card).used)

    def _refuse_slices(self, card: Any) -> None:
        try:
            split, _ = self._call("nvmlDeviceGetMigMode", card)
        except Unmeasurable:  # a card that cannot be split does not support the question
            return
        if split:
            raise Unmeasurable("the card is split into slices (MIG), and NVML's figure is that of all of them")

    def _card(self, uuid: str) -> Any:
        cards = self._cards()
        if uuid not in cards:
            raise Unmeasurable("NVML knows no card of this device's UUID: a slice of a card (MIG) has its own")
        return cards[uuid]

    def _cards(self) -> dict[str, Any]:
        if not self._known:
            for index in range(self._call("nvmlDeviceGetCount")):
                card = self._call("nvmlDeviceGetHandleByIndex", index)
                self._known[_text(self._call("nvmlDeviceGetUUID", card)).removeprefix("GPU-")] = card
        return self._known

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._api is None:
            raise Unmeasurable(self._refusal)
        try:
            return getattr(self._api, name)(*arguments)
        except self._api.NVMLError as error:
            raise Unmeasurable(f"NVML refuses {name}: {error}") from None


def open_nvml() -> Nvml:
    """NVML as far as this machine has it."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return Nvml(None, "the package nvidia-ml-py is not installed: pip install 'memcalc[profile]'")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Nvml(None, f"NVML does not start: {error}")
    return Nvml(pynvml)


def used_by(processes: list[Process], pid: int) -> int:
    """Bytes of one process among those listed."""
    found = next((process for process in processes if process.pid == pid), None)
    if found is None:
        raise Unmeasurable("NVML lists processes by the host's numbers, and ours is not among them (a container)")
    if found.used is None:
        raise Unmeasurable("the driver does not tell what a process uses (WDDM)")
    return found.used


def alone(before: list[Process], after: list[Process], pid: int) -> bool:
    """Whether nobody else computes on the card, `before` and `after` we began to.

    In a container our own number is not listed: then one process after none is us.
    """
    strangers = [process for process in after if process.pid != pid]
    return not before and len(strangers) == (0 if len(strangers) < len(after) else 1)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
