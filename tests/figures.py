"""Published measurements as rows of figures, and what a tier predicts for each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from memcalc.errors import MemcalcError
from memcalc.footprint import Footprint
from memcalc.importers import peft
from memcalc.recording import Recording, footprint_of
from memcalc.workload import Workload
from tests.producers import PRODUCERS

FOLDER = Path(__file__).parent.parent / "profiles" / "published"
SOURCES = ("fitcheck", "vramcalc", "fms", "peft")


@dataclass(frozen=True)
class Figure:
    """One measured number beside the predicted one, in bytes or parameters."""

    name: str
    measured: int
    predicted: int
    bar: float | None  # the largest relative error that the project allows itself; None: none was set

    @property
    def error(self) -> float:
        """Relative to the measurement."""
        return (self.predicted - self.measured) / self.measured

    @property
    def missed(self) -> bool:
        return self.bar is not None and abs(self.error) > self.bar


@dataclass(frozen=True)
class Row:
    """A published measurement."""

    id: str
    source: str
    options: Mapping[str, Any]
    measured: Mapping[str, Any]
    versions: Mapping[str, str]

    @cached_property
    def workload(self) -> Workload:
        """Raises MemcalcError where it cannot be said in our words yet."""
        return peft.from_json(self.options)


class Prediction:
    """What a tier says of a row."""

    def __init__(self, row: Row, tier: str) -> None:
        self.row = row
        self.recording: Recording = PRODUCERS[tier](row.workload)
        self.footprint: Footprint = footprint_of(row.workload, self.recording, "estimate")

    def figures(self) -> list[Figure]:
        """Every measured number of the row that the footprint predicts."""
        bars = _bars(self.row)
        return [
            Figure(name, measured, predicted, bars.get(name.partition(": ")[0]))
            for name, measured, predicted in _measured(self.row.measured, self.footprint)
        ]


def rows() -> Iterator[Row]:
    """All rows of all sources."""
    for source in SOURCES:
        for line in (FOLDER / f"{source}.jsonl").read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            yield Row(data["id"], source, data["workload"], data["measured"], data["versions"])


def predicted(row: Row, tier: str = "estimate") -> Prediction | str:
    """The tier's prediction, or why there is none."""
    try:
        return Prediction(row, tier)
    except MemcalcError as error:
        return str(error)


def _measured(measured: Mapping[str, Any], footprint: Footprint) -> Iterator[tuple[str, int, int]]:
    """Name, measured and predicted, of every number that both have."""
    phases = {phase.name: phase for phase in footprint.phases}
    by_phase = [(f"phase: {p['name']}", p["allocated_peak"], p["name"]) for p in measured.get("phases", ())]
    pairs: list[tuple[str, int | None, int | None]] = [
        ("peak allocated", measured.get("peak_allocated"), footprint.peak_allocated),
        *((name, real, phases[phase].allocated_peak) for name, real, phase in by_phase),
        ("peak reserved", measured.get("peak_reserved"), footprint.peak_reserved),
        ("after loading", measured.get("after_load_allocated"), phases["load"].allocated_end),
        ("after training", measured.get("end_allocated"), footprint.phases[-1].allocated_end),
        ("total parameters", measured.get("total_params"), footprint.total_params),
        ("trainable parameters", measured.get("trainable_params"), footprint.trainable_params),
        ("saved file", measured.get("checkpoint_bytes"), footprint.checkpoint_bytes),
    ]
    for name, real, said in pairs:
        if real is not None and said is not None:
            yield name, real, said


def _bars(row: Row) -> dict[str, float]:
    """The errors that the project allows itself, by figure; a row's parameters are exact wherever it has them."""
    exact = {"total parameters": 0.0, "trainable parameters": 0.0}
    quantized = row.workload.quant != "none"
    match row.source:
        case "fitcheck":
            return {**exact, "peak allocated": 0.005, "phase": 0.005, "peak reserved": 0.04 if quantized else 0.01}
        case "vramcalc" if row.workload.method_name == "full" and row.workload.checkpointing:
            return {**exact, "peak allocated": 0.005}
        case "fms" if row.workload.method_name == "full":
            return {**exact, "peak allocated": 0.002}
        case "peft":
            apart = {"full": 0.015, "lora": 0.015, "prefix_tuning": 0.055}  # the last one's block is not found
            return {**exact, "peak reserved": apart.get(row.workload.method_name, 0.03)}
    return exact
