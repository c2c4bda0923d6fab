"""A measured run beside its predictions, figure by figure. Bytes, and counts of parameters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from memcalc.footprint import Footprint
from memcalc.reporting.console import category_name, printable
from memcalc.reporting.reading import Row, short
from memcalc.timeline import CATEGORIES
from memcalc.units import gib

MEASURED = ("profile", "published")  # producers that have measured; the others have predicted
PEAKS = ("peak allocated", "peak reserved")
_TOLD = CATEGORIES[:5]  # weights to optimizer states: what a device's record can tell apart
_UNTOLD = CATEGORIES[5:]
_REST = "at the peak: not told apart"


class Figure(NamedTuple):
    """One number that was measured, and what the tiers say of it; None where a tier says nothing."""

    name: str
    group: str  # peak, phase, category, file (bytes), count (parameters)
    measured: int
    estimate: int | None
    trace: int | None


@dataclass(frozen=True)
class Case:
    """A row and the predictions for it; a text in place of a prediction is the reason why there is none."""

    row: Row
    workload: Mapping[str, Any]  # resolved, where it can be read
    estimate: Footprint | str
    trace: Footprint | str | None = None  # None: not asked

    @property
    def is_measured(self) -> bool:
        return self.row.footprint.producer in MEASURED

    @property
    def place(self) -> str:
        """What it was measured on: a GPU, by its counters, or the CPU, where each tensor was recorded."""
        return "CPU" if self.workload.get("device") == "cpu" else "GPU"

    @property
    def method(self) -> str:
        return short(self.workload.get("method", "lora"))

    @property
    def model(self) -> str:
        return short(self.workload.get("model", "unknown"))

    @property
    def family(self) -> str:
        config = self.workload.get("model_config")
        return short(config.get("model_type")) if isinstance(config, Mapping) else "unknown"

    @property
    def precision(self) -> str:
        """What the weights are stored in, and what is computed in where that is another."""
        w = self.workload
        base = w.get("dtype", "bf16") if w.get("quant", "none") == "none" else f"{w['quant']} in {w.get('dtype')}"
        return short(f"{base}, {w['amp']} autocast" if w.get("amp", "none") != "none" else base)

    @property
    def size(self) -> str:
        """Micro-batch and sequence length."""
        return short(f"{self.workload.get('batch', 1)} × {self.workload.get('seq_len', 1024)}")

    @property
    def refusals(self) -> dict[str, str]:
        """Why a tier says nothing of this row, by tier."""
        tiers = {"estimate": self.estimate, "trace": self.trace}
        return {tier: printable(said) for tier, said in tiers.items() if isinstance(said, str)}

    @property
    def missing(self) -> str:
        """Why this row is compared with nothing; empty where it is compared."""
        if self.row.footprint.outcome not in (None, "ok"):
            return self._failed()
        if self.figures:
            return ""
        return next(iter(self.refusals.values()), "it holds no figure that is predicted")

    def _failed(self) -> str:
        """What became of a run that did not end, and what was predicted for it."""
        measured = self.row.footprint
        reason = printable(measured.unavailable.get("peak_allocated", measured.outcome))
        said = f"; estimate says {gib(self.estimate.held)}" if isinstance(self.estimate, Footprint) else ""
        return reason + said

    @cached_property
    def figures(self) -> list[Figure]:
        """Every measured number that a tier predicts."""
        estimate, trace = (_values(tier) for tier in (self.estimate, self.trace))
        found = (
            Figure(name, group, value, estimate.get((group, name)), trace.get((group, name)))
            for (group, name), value in _values(self.row.footprint).items()
            if (group, name) in estimate.keys() | trace.keys()
        )
        told = self.row.footprint.at_peak is not None
        return [each for each in found if not (each.name == _REST and told) and not _is_nothing(each)]

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, where it was measured and estimated."""
        return next((each for each in self.figures if each.name == name and each.estimate is not None), None)


def _values(footprint: Footprint | str | None) -> dict[tuple[str, str], int]:
    """Group and name of every figure that a footprint holds."""
    if not isinstance(footprint, Footprint):
        return {}
    return {(group, name): value for group, name, value in _each(footprint) if value is not None}


def _each(footprint: Footprint) -> Iterator[tuple[str, str, int | None]]:
    yield "peak", "peak allocated", footprint.peak_allocated
    yield "peak", "peak reserved", footprint.peak_reserved
    yield "peak", "device", footprint.device_total
    for phase in footprint.phases:
        yield "phase", f"{phase.name} peak", phase.allocated_peak
    for phase in footprint.phases:
        if phase.name in ("load", "optimizer"):
            yield "phase", f"after {phase.name}", phase.allocated_end
    yield from (("category", name, value) for name, value in _categories(footprint))
    yield "count", "total parameters", footprint.total_params
    yield "count", "trainable parameters", footprint.trainable_params
    yield "file", "saved file", footprint.checkpoint_bytes


def _categories(footprint: Footprint) -> Iterator[tuple[str, int]]:
    """Categories at the peak. A device's record knows what it has been told of; the rest is one sum."""
    if footprint.at_peak is not None:
        for category, nbytes in footprint.at_peak.items():
            yield f"at the peak: {category_name(category)}", nbytes
        yield _REST, sum(footprint.at_peak[category] for category in _UNTOLD)
        return
    known = footprint.measured.get("at_peak_known")
    if isinstance(known, Mapping):
        for category in (*_TOLD, "unknown"):
            told = known.get(category)
            if type(told) is int and 0 <= told < 2**63:
                yield f"at the peak: {category_name(category)}" if category in _TOLD else _REST, told


def _is_nothing(figure: Figure) -> bool:
    """A category that is not there on either side: to be right about it is no merit."""
    return figure.group == "category" and not (figure.measured or figure.estimate or figure.trace)
