"""The output of every tier: bytes by category at the peak, per phase, parameters, versions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast

from memcalc.errors import BadFile, InvalidWorkload, shown
from memcalc.timeline import CATEGORIES
from memcalc.units import gib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from memcalc.verdict import Verdict

SCHEMA = "memcalc.footprint/1"
PRODUCERS = ("estimate", "trace", "profile", "published")
LEVELS = (
    "total_params", "trainable_params", "checkpoint_bytes", "peak_allocated", "peak_live", "peak_reserved",
    "device_total",
)  # fmt: skip


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


@dataclass(frozen=True, repr=False)
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

    @property
    def held(self) -> int:
        """Bytes that the device must hold: what is reserved, or on the CPU, which reserves nothing, allocated."""
        level = self.peak_allocated if self.peak_reserved is None else self.peak_reserved
        return level or 0

    def fits(self, gpu: str) -> "Verdict":
        """Whether the run fits on `gpu` (a catalog name, or a size such as "24GiB"): true or false, with its margin.

        Compares what the device must hold: reserved memory plus the CUDA context of that card where one
        was measured. Raises InvalidWorkload where this footprint has no such level (a run on the CPU).
        """
        from memcalc.catalog.find import find_gpu
        from memcalc.verdict import Verdict

        card = find_gpu(gpu)
        if self.peak_reserved is None:
            reason = self.unavailable.get("peak_reserved", "not measured")
            raise InvalidWorkload(f"no reserved level to hold against {card.name}: {reason}")
        size = gib(card.memory_bytes)
        name = size if card.memory_source == "given" else f"{card.name} ({size})"
        context = card.context_bytes
        return Verdict(name, self.peak_reserved + (context or 0), card.memory_bytes, context is not None)

    def margin(self, gpu: str) -> int:
        """Bytes to spare on `gpu`, negative where it does not fit. Raises as `fits` does."""
        return self.fits(gpu).margin

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the phases' peaks, the highest by category; on `ax`, or on a figure of its own. Needs matplotlib."""
        from memcalc.reporting.footprint_plot import plot

        return plot(self, ax)

    def to_frame(self) -> "DataFrame":
        """One row of a pandas DataFrame, as `memcalc.to_frame` makes of many. Needs pandas."""
        from memcalc.reporting.frames import to_frame

        return to_frame([self])

    def _repr_html_(self) -> str:
        from memcalc.reporting.notebook import fragment

        return fragment(self)

    def __repr__(self) -> str:
        """In one line; `to_json` has it all."""
        levels = {"allocated": self.peak_allocated, "reserved": self.peak_reserved}
        known = ", ".join(f"{gib(level)} {name}" for name, level in levels.items() if level is not None)
        run = " ".join(str(self.workload[name]) for name in ("model", "method") if name in self.workload)
        return f"<Footprint by {self.producer} of {shown(run)}: {known or self.outcome}>"

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
        schema = data.get("schema") if isinstance(data, Mapping) else data
        if schema != SCHEMA or not isinstance(data, Mapping):
            raise BadFile(path, f"schema is {shown(schema)}, this version of memcalc reads {SCHEMA}")
        try:
            values = {name: data[name] for name in _KEYS if name in data}
            values["phases"] = tuple(Phase(**phase) for phase in values.get("phases", ()))
            values["largest"] = tuple(Block(**block) for block in values.get("largest", ()))
            values["warnings"] = tuple(values.get("warnings", ()))
            footprint = cls(**values)
        except (TypeError, KeyError) as error:
            raise BadFile(path, f"not a footprint: {' '.join(str(error).split())}") from None
        for name, wanted, value in _wrong(footprint):
            raise BadFile(path, f"{name} must be {wanted}, not {shown(value)}")
        return footprint


_KEYS = tuple(Footprint.__dataclass_fields__)


def _wrong(footprint: Footprint) -> Iterator[tuple[str, str, object]]:
    """What a footprint from a file holds that the schema does not allow: where, what should be there, what is."""
    for name, (wanted, allows) in _SCHEMA.items():
        value = getattr(footprint, name)
        if not allows(value):
            yield name, wanted, value


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_level(value: object) -> bool:
    return value is None or _is_size(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return value is None or _is_text(value)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _are_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value.values()))


def _are_sizes(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and set(value) == set(CATEGORIES) and all(map(_is_size, value.values()))
    )


def _are_phases(value: tuple[Phase, ...]) -> bool:
    return all(_is_text(phase.name) and all(map(_is_level, phase[1:])) for phase in value)


def _are_blocks(value: tuple[Block, ...]) -> bool:
    return all(_is_size(block.nbytes) and _is_text(block.category) and _is_text(block.label) for block in value)


def _is_duration(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= cast(float, value) < inf)


_SCHEMA: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "producer": (f"one of {', '.join(PRODUCERS)}", lambda value: value in PRODUCERS),
    "workload": ("an object", _is_object),
    **dict.fromkeys(LEVELS, ("a whole number of at least 0 or null", _is_level)),
    "peak_phase": ("a text or null", _is_name),
    "at_peak": (f"null or whole numbers under {', '.join(CATEGORIES)}", _are_sizes),
    "phases": ("objects with a name, and levels that are whole numbers or null", _are_phases),
    "unavailable": ("an object of texts", _are_texts),
    "versions": ("an object of texts", _are_texts),
    "warnings": ("a list of texts", lambda value: all(map(_is_text, value))),
    "seconds": ("a number of at least 0 or null", _is_duration),
    "largest": ("objects with nbytes, category and label", _are_blocks),
    "outcome": ("a text or null", _is_name),
    "measured": ("an object", _is_object),
}
