"""A Watch that reads the allocator's counters where phases begin and end."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from memcalc.footprint import Phase
from memcalc.profiling.memory import Levels, Memory
from memcalc.realize import quantize
from memcalc.realize.optimizer import kept_by
from memcalc.timeline import PHASES


class Noted(NamedTuple):
    """Where tensors of a known kind lay when so many allocations and releases had happened."""

    events: int
    category: str
    addresses: frozenset[int]


class Meter:
    """Levels by phase, as the replay of a timeline counts them: history is one phase, whatever happens in it; a phase
    that is repeated keeps its highest peak and its last end; what a loop drops after `phase_end` is still the phase's.
    """

    def __init__(self, memory: Memory, seen: Callable[[], None] = lambda: None) -> None:
        self.memory, self._seen = memory, seen
        self.model: nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.marks: list[tuple[int, str, str]] = []  # events so far, kind, name: a timeline's marks
        self.noted: list[Noted] = []
        self._ends: dict[str, int] = {}
        self._peaks: dict[str, int | None] = {}
        self._reserved: dict[str, int | None] = {}
        self.open: str | None = None  # the phase that runs
        self._read = False
        self._marking, self._finished = True, False

    def history(self) -> None:
        self._begin("history")
        self._marking = False

    def measured(self) -> None:
        self._marking = not self._finished

    def phase(self, name: str) -> None:
        if self._marking:
            self._begin(name)

    def phase_end(self) -> None:
        levels = self.memory.levels()
        self._note_tensors(levels)
        if self._marking and self.open is not None:
            self._ends[self.open], self._read = levels.allocated, True
            self._mark(levels, "phase_end")
        self._seen()

    def stepping(self, parameter: torch.Tensor) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self) -> None:
        self._note_tensors(self.memory.levels())

    def empty_cache(self) -> None:
        self.memory.empty_cache()

    def finish(self) -> None:
        """The measured step is over; what runs from here on is not read."""
        self._close()
        self._marking, self._finished = False, True

    def phases(self) -> tuple[Phase, ...]:
        """The levels of each phase that was read, in the contract's order."""
        order = [name for name in PHASES if name != "history" and name in self._ends]
        return tuple(Phase(name, self._ends[name], self._peaks[name], self._reserved[name]) for name in order)

    @property
    def peak_allocated(self) -> int | None:
        """The highest peak of all phases but history."""
        return _highest(peak for name, peak in self._peaks.items() if name != "history")

    @property
    def peak_phase(self) -> str | None:
        peaks = {phase.allocated_peak: phase.name for phase in reversed(self.phases())}
        return None if self.peak_allocated is None else peaks[self.peak_allocated]

    @property
    def peak_reserved(self) -> int | None:
        """The most reserved since the process began."""
        return _highest(self._reserved.values())

    def know_loaded(self, model: nn.Module, own: set[int]) -> None:
        """Note a loaded model's tensors; `own` are the ids of the base model's."""
        self.model = model
        levels = self.memory.levels()
        kinds: dict[str, list[torch.Tensor]] = {"weights": [], "adapter": [], "quantization_state": []}
        for tensor in (*model.parameters(), *model.buffers()):
            kinds["weights" if id(tensor) in own else "adapter"].append(tensor)
        for module in model.modules():
            kinds["quantization_state"] += quantize.quantization_state(module)
        self._note(levels, kinds)

    def _note_tensors(self, levels: Levels) -> None:
        """Gradients and optimizer states are known as such once they are in place."""
        kinds: dict[str, list[torch.Tensor]] = {}
        if self.model is not None:
            kinds["gradients"] = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.optimizer is not None:
            kinds["optimizer_states"] = list(kept_by(self.optimizer))
        self._note(levels, kinds)

    def _note(self, levels: Levels, kinds: dict[str, list[torch.Tensor]]) -> None:
        for category, tensors in kinds.items():
            addresses = frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)
            self.noted.append(Noted(levels.events or 0, category, addresses))

    def _begin(self, name: str) -> None:
        self._close()
        self.open, self._read = name, False
        self._mark(self.memory.levels(), "phase", name)
        self.memory.reset_peaks()

    def _close(self) -> None:
        if self.open is None:
            return
        name, levels = self.open, self.memory.levels()
        if not self._read:
            self._ends[name] = levels.allocated
        self._peaks[name] = _highest((self._peaks.get(name), levels.allocated_peak))
        self._reserved[name] = _highest((self._reserved.get(name), levels.reserved_peak))
        self.open = None

    def _mark(self, levels: Levels, kind: str, name: str = "") -> None:
        self.marks.append((levels.events or 0, kind, name))


def _highest(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)
