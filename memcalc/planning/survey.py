"""All methods on one model, side by side: what each trains and stores, needs in a step, and adds at inference.

The columns are those by which surveys compare methods (Lialin et al. 2023, arXiv:2303.15647, section 3): storage,
memory, backpropagation, inference. Every figure is of a workload that was really estimated.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from memcalc import methods
from memcalc.catalog.find import Model, find_model
from memcalc.errors import InvalidWorkload, MemcalcError, UnknownName
from memcalc.estimating import architecture_of, arithmetic, family_of, record, without_collector
from memcalc.footprint import Footprint
from memcalc.methods.full import Full
from memcalc.options import names_of, options_of
from memcalc.planning.frames import framed
from memcalc.recording import footprint_of
from memcalc.sections import layers_of
from memcalc.step.declaring import changed_in
from memcalc.timeline import Timeline
from memcalc.workload import Workload

if TYPE_CHECKING:
    from pandas import DataFrame

Tell = Callable[[str], None]  # what is being done, for whoever waits
Bases = dict[tuple[str, bool, str], tuple[int, int]]  # parameters and peak of forwards without any method

_SHARED = ("model", "model_config", "gpu", *options_of(Workload))
_OF_A_FORWARD = (  # the workload's options that mean the same at inference
    "batch", "seq_len", "padded", "dtype", "amp", "quant", "double_quant", "autocast_adapter_dtype", "attention",
    "load", "device", "alloc_conf",
)  # fmt: skip
_OF_ADAPTERS = ("quant", "double_quant", "kbit_prepare", "load")  # a quantized base cannot train in full


@dataclass(frozen=True)
class Row:
    """One method on the workload. Ratios are against full fine-tuning of a base that is not quantized."""

    method: str
    type: str
    quant: str  # the format of its base
    checkpointing: bool
    trainable_params: int
    total_params: int
    changed_params: int  # in which the tuned model differs from its base, merged where that can be
    checkpoint_bytes: int
    peak_reserved: int | None  # None on the CPU, which reserves nothing
    peak_allocated: int
    peak_of_full: float | None
    fits: bool | None  # on the workload's GPU; None on the CPU
    kept_bytes: int  # of forward, alive when backward begins
    forward_flops: int
    backward_flops: int  # what checkpointing computes again is among them
    backward_of_full: float | None
    layers_reached: int  # by backward
    layers: int
    inference_params: int  # more than the base alone has
    inference_bytes: int  # more than the base alone allocates
    mergeable: bool | None  # None: it adds nothing that could be


class Needs(NamedTuple):
    """What a training step needs."""

    held: int
    backward_flops: int


@dataclass(frozen=True)
class Survey:
    """The rows of those methods that can be had, the reasons of those that cannot."""

    model: str
    workload: Mapping[str, Any]  # the options that are the same in all rows
    full: Needs | None  # full fine-tuning; None where that cannot be estimated
    rows: tuple[Row, ...]
    refused: Mapping[str, str]  # why, by method

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "memcalc.survey/1",
            "model": self.model,
            "workload": dict(self.workload),
            "full": None if self.full is None else self.full._asdict(),
            "rows": [asdict(row) for row in self.rows],
            "refused": dict(self.refused),
        }

    def to_frame(self) -> "DataFrame":
        """A row for each method, refused ones too, with their `reason`. Raises MissingPackage without pandas."""
        return framed(Row, self.rows, self.refused)


def survey(model: str | Model, names: Iterable[str], options: Mapping[str, Any], tell: Tell = lambda _: None) -> Survey:
    """Every method of `names` on a model; each takes those of the options that it knows.

    Raises InvalidWorkload or UnknownName for what goes with none of them; where none can be had, what the first says.
    """
    if options.get("mode", "train") != "train":
        raise InvalidWorkload("a survey is of training, and of inference besides: it takes no --mode")
    chosen = checked(names, options)
    model = model if isinstance(model, Model) else find_model(model)
    with without_collector():
        full = _full(model, options)
        rows: list[Row] = []
        refused: dict[str, MemcalcError] = {}
        shared: dict[str, Any] = {}
        bases: Bases = {}
        for name in chosen:
            tell(name)
            try:
                w = workload(model, name, options)
                row = _row(w, full, *_added(workload(model, name, _of_inference(options)), bases))
            except MemcalcError as error:
                refused[name] = error
                continue
            rows.append(row)
            said = {key: value for key, value in w.to_json().items() if key in _SHARED}
            shared = {key: value for key, value in (shared or said).items() if said[key] == value}
    if not rows:
        raise next(iter(refused.values()))
    reasons = {name: str(error) for name, error in refused.items()}
    return Survey(str(shared["model"]), shared, full, tuple(rows), reasons)


def checked(names: Iterable[str], options: Mapping[str, Any]) -> list[str]:
    """The methods' names, once each. Raises InvalidWorkload or UnknownName for an option that none of them takes."""
    chosen = list(dict.fromkeys(map(methods.canonical_name, names)))
    known = {"gpu", *names_of(Workload)}.union(*(names_of(methods.load(name).METHOD) for name in chosen))
    for option in options:
        plain = option.replace("-", "_")
        if plain in known:
            continue
        owners = [name for name in methods.names() if plain in names_of(methods.load(name).METHOD)]
        if not owners:
            raise UnknownName("option", option, sorted(known))
        flag = f"--{plain.replace('_', '-')}"
        raise InvalidWorkload(f"none of {', '.join(chosen)} has {flag}: it belongs to {', '.join(owners)}")
    return chosen


def workload(model: str | Model, method: str, options: Mapping[str, Any]) -> Workload:
    """A method on a model, with those of the options that are the workload's or this method's."""
    known = {"gpu", *names_of(Workload), *names_of(methods.load(method).METHOD)}
    own = {name: value for name, value in options.items() if name.replace("-", "_") in known}
    return Workload.of(model, method, **own)


def _full(model: str | Model, options: Mapping[str, Any]) -> Needs | None:
    plain = {name: value for name, value in options.items() if _plain(name) not in _OF_ADAPTERS}
    try:
        w = workload(model, "full", plain)
        recording = record(w)
        return Needs(footprint_of(w, recording, "estimate").held, 2 * arithmetic(w).backward)
    except MemcalcError:
        return None


def _of_inference(options: Mapping[str, Any]) -> dict[str, Any]:
    of_training = options_of(Workload).keys() - set(_OF_A_FORWARD)
    kept = {name: value for name, value in options.items() if _plain(name) not in of_training}
    return {**kept, "mode": "inference"}


def _plain(name: str) -> str:
    """A workload's option by its field's name."""
    plain = name.replace("-", "_")
    return names_of(Workload).get(plain, plain)


def _row(w: Workload, full: Needs | None, inference_params: int, inference_bytes: int) -> Row:
    recording = record(w)
    footprint, work = footprint_of(w, recording, "estimate"), arithmetic(w)
    assert footprint.peak_allocated is not None
    reached, layers = _reached(recording.timeline, w)
    return Row(
        method=w.method_name,
        type=w.method.kind,
        quant=w.quant,
        checkpointing=w.checkpointing,
        trainable_params=recording.trainable_params,
        total_params=recording.total_params,
        changed_params=changed_in(architecture_of(w), w.method),
        checkpoint_bytes=recording.checkpoint_bytes,
        peak_reserved=footprint.peak_reserved,
        peak_allocated=footprint.peak_allocated,
        peak_of_full=None if full is None else footprint.held / full.held,
        fits=fits(w, footprint),
        kept_bytes=_kept(recording.timeline),
        forward_flops=2 * work.forward,
        backward_flops=2 * work.backward,
        backward_of_full=None if full is None else 2 * work.backward / full.backward_flops,
        layers_reached=reached,
        layers=layers,
        inference_params=inference_params,
        inference_bytes=inference_bytes,
        mergeable=w.method.merges if inference_params else None,
    )


def fits(w: Workload, footprint: Footprint) -> bool | None:
    """Whether a run fits on its GPU; None where it has none."""
    return bool(footprint.fits(str(footprint.workload["gpu"]))) if w.device == "cuda" else None


def _added(w: Workload, bases: Bases) -> tuple[int, int]:
    """Parameters and bytes of a forward's peak that the base alone would not have."""
    key = w.quant, w.double_quant, w.load
    if key not in bases:
        bases[key] = _in_use(replace(w, method_name="full", method=Full()))
    with_method, alone = _in_use(w), bases[key]
    return with_method[0] - alone[0], with_method[1] - alone[1]


def _in_use(w: Workload) -> tuple[int, int]:
    recording = record(w)
    forward = footprint_of(w, recording, "estimate").phases[-1]
    assert forward.allocated_peak is not None
    return recording.total_params, forward.allocated_peak


def _kept(timeline: Timeline) -> int:
    """Bytes that the first forward of the measured step left alive when its backward begins."""
    begun = _begin(timeline, "forward", 0)
    alive: set[int] = set()
    for event in timeline.events[begun : _begin(timeline, "backward", begun)]:
        if event >= 0:
            alive.add(event)
        else:
            alive.discard(~event)
    return sum(timeline.nbytes[row] for row in alive)


def _reached(timeline: Timeline, w: Workload) -> tuple[int, int]:
    """In how many layers backward allocates anything, and how many there are."""
    family, c = family_of(w)
    homes = layers_of(timeline, family.LAYERS)
    begun = _begin(timeline, "backward", 0)
    born = (event for event in timeline.events[begun : _begin(timeline, "optimizer", begun)] if event >= 0)
    return len({homes[row] for row in born} - {None}), c.layers


def _begin(timeline: Timeline, phase: str, after: int) -> int:
    return next(mark.at for mark in timeline.marks if mark.name == phase and mark.at >= after)
