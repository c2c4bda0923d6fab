"""The output of every tier: bytes by category at the peak, per phase, parameters, versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from memcalc.errors import BadFile, InvalidWorkload, shown
from memcalc.timeline import CATEGORIES

SCHEMA = "memcalc.footprint/1"


class Phase(NamedTuple):
    """Levels of one phase of the step, in bytes; None where they could not be measured."""

    name: str  # load, forward, backward, optimizer
    allocated_end: int | None
    allocated_peak: int | None
    reserved_peak: int | None


class Block(NamedTuple):
    """One memory block alive at the peak."""

    nbytes: int
    category: str
    label: str


@dataclass(frozen=True)
class Footprint:
    """What a workload needs. Bytes are integers; None stands beside a reason in `unavailable`."""

    producer: Literal["estimate", "trace", "profile", "published"]
    workload: Mapping[str, Any]  # Workload.to_json(), with the attention kernel taken
    total_params: int | None = None
    trainable_params: int | None = None
    checkpoint_bytes: int | None = None
    peak_allocated: int | None = None
    peak_live: int | None = None
    peak_reserved: int | None = None
    device_total: int | None = None
    peak_phase: str | None = None
    at_peak: Mapping[str, int] | None = None
    phases: tuple[Phase, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    largest: tuple[Block, ...] = ()  # the largest blocks alive at the peak, --top N
    outcome: str | None = None  # profile: ok, out_of_memory, crashed, timeout
    measured: Mapping[str, Any] = field(default_factory=dict)  # profile: what only a device can tell

    def fits(self, gpu: str) -> bool:
        """Whether the run fits on `gpu` (a catalog name, or a size such as "24GiB")."""
        return self.margin(gpu) >= 0

    def margin(self, gpu: str) -> int:
        """Bytes to spare on `gpu`, negative where it does not fit.

        Compares what the device must hold: reserved memory plus the CUDA context of that card where one
        was measured. Raises InvalidWorkload where this footprint has no such level (a run on the CPU).
        """
        from memcalc.catalog.find import find_gpu

        card = find_gpu(gpu)
        if self.peak_reserved is None:
            reason = self.unavailable.get("peak_reserved", "not measured")
            raise InvalidWorkload(f"no reserved level to hold against {card.name}: {reason}")
        return card.memory_bytes - self.peak_reserved - (card.context_bytes or 0)

    def to_json(self) -> dict[str, Any]:
        """The contract's object: plain JSON values, bytes as integers, every key always there."""
        data: dict[str, Any] = {"schema": SCHEMA}
        for name in _KEYS:
            value = getattr(self, name)
            if name == "phases":
                value = [phase._asdict() for phase in value]
            elif name == "largest":
                value = [block._asdict() for block in value]
            elif isinstance(value, Mapping):
                value = dict(value)
            data[name] = list(value) if isinstance(value, tuple) else value
        for optional in ("largest", "measured", "outcome"):
            if not data[optional]:
                del data[optional]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: str = "footprint") -> Self:
        """The footprint that `to_json` wrote. Raises BadFile for another schema or for wrong types."""
        schema = data.get("schema")
        if schema != SCHEMA:
            raise BadFile(path, f"schema is {shown(schema)}, this version of memcalc reads {SCHEMA}")
        try:
            values = {name: data[name] for name in _KEYS if name in data}
            values["phases"] = tuple(Phase(**phase) for phase in values.get("phases", ()))
            values["largest"] = tuple(Block(**block) for block in values.get("largest", ()))
            values["warnings"] = tuple(str(warning) for warning in values.get("warnings", ()))
            footprint = cls(**values)
        except (TypeError, KeyError) as error:
            raise BadFile(path, f"not a footprint: {error}") from None
        footprint._check(path)
        return footprint

    def _check(self, path: str) -> None:
        """A footprint from a file holds what the schema says: integers are integers, mappings mappings."""
        for name in (
            "total_params",
            "trainable_params",
            "checkpoint_bytes",
            "peak_allocated",
            "peak_live",
            "peak_reserved",
            "device_total",
        ):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise BadFile(path, f"{name} must be a whole number of at least 0 or null, not {shown(value)}")
        for name in ("workload", "unavailable", "versions", "measured"):
            if not isinstance(getattr(self, name), Mapping):
                raise BadFile(path, f"{name} must be an object, not {shown(getattr(self, name))}")
        levels = [
            level for phase in self.phases for level in (phase.allocated_end, phase.allocated_peak, phase.reserved_peak)
        ]
        if not all(level is None or (isinstance(level, int) and level >= 0) for level in levels):
            raise BadFile(path, "a phase's levels must be whole numbers or null")
        if self.at_peak is not None and (not isinstance(self.at_peak, Mapping) or set(self.at_peak) != set(CATEGORIES)):
            raise BadFile(path, f"at_peak must have the keys {', '.join(CATEGORIES)}")


_KEYS = tuple(Footprint.__dataclass_fields__)
