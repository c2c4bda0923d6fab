"""Parameters of one model under one method, counted by estimate and by peft itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memcalc import families
from memcalc.catalog.find import Model, models
from memcalc.errors import MemcalcError
from memcalc.workload import Workload
from tests.producers import estimated

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "lora all-linear": {"method": "lora", "target": ("all-linear",), "rank": 16},
    "qlora": {"method": "qlora"},
}


class Parameters(NamedTuple):
    total: int
    trainable: int


@dataclass(frozen=True)
class Count:
    """What both say."""

    model: str
    method: str
    estimated: Parameters
    real: Parameters | str  # or why there is none

    @property
    def exact(self) -> bool:
        return self.estimated == self.real


def catalog() -> Iterator[Model]:
    """The catalog's models of the families that estimate writes."""
    return (model for model in models() if model.config["model_type"] in families.names())


def counts(model: Model) -> list[Count]:
    """Both counts under every method. The workload is as small as it can be: counts do not depend on it."""
    workloads = {name: Workload.of(model, batch=1, seq_len=1, history="none", **METHODS[name]) for name in METHODS}
    real = _real_parameters(workloads)
    return [Count(model.name, name, _parameters(workloads[name]), real[name]) for name in METHODS]


def _parameters(workload: Workload) -> Parameters:
    recording = estimated(workload)
    return Parameters(recording.total_params, recording.trainable_params)


def _real_parameters(workloads: Mapping[str, Workload]) -> dict[str, Parameters | str]:
    """transformers' model and peft's wrappers around it on meta, counted as peft counts.

    qlora's are lora's: peft counts packed weights by their logical size.
    """
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    base: Any = build(workloads["full"], "meta")
    sizes = [parameter.numel() for parameter in base.parameters()]
    found: dict[str, Parameters | str] = {"full": Parameters(sum(sizes), sum(sizes))}
    for name in ("lora", "lora all-linear"):
        try:
            wrapped: Any = wrap(base, workloads[name], "meta")
        except MemcalcError as error:
            found[name] = str(error)
            continue
        trainable, total = wrapped.get_nb_trainable_parameters()
        found[name] = Parameters(total, trainable)
        base = wrapped.unload()
    return {**found, "qlora": found["lora"]}
