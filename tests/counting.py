"""Parameters of one model under one method, counted by estimate and by peft itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memcalc import families
from memcalc.catalog.find import Model, models
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
    real: Parameters

    @property
    def exact(self) -> bool:
        return self.estimated == self.real


def catalog() -> Iterator[Model]:
    """The catalog's models of the families that estimate writes."""
    return (model for model in models() if model.config["model_type"] in families.names())


def count(model: Model, method: str) -> Count:
    """Both counts. The workload is as small as it can be: counts do not depend on it."""
    workload = Workload.of(model, batch=1, seq_len=1, history="none", **METHODS[method])
    recording = estimated(workload)
    mine = Parameters(recording.total_params, recording.trainable_params)
    return Count(model.name, method, mine, real_parameters(workload))


def real_parameters(workload: Workload) -> Parameters:
    """transformers' model and peft's wrapper on meta, counted as peft counts.

    A quantized base is counted before it is quantized: peft counts packed weights by their logical size.
    """
    from memcalc.realize.model import build, uses_peft, wrap

    wrapped: Any = wrap(build(workload, "meta"), workload)
    if uses_peft(wrapped):
        trainable, total = wrapped.get_nb_trainable_parameters()
        return Parameters(total, trainable)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in wrapped.parameters()]
    return Parameters(sum(size for size, _ in counts), sum(size for size, trains in counts if trains))
