"""All cases on one card, a JSON-able record each."""

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from memcalc.kernels import Gpu
from memcalc.profiling.card import Card
from memcalc.profiling.device import Device
from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.kernels import (
    attention,
    choosing,
    convolving,
    fourier,
    plain,
    process,
    products,
    quantized,
    recurrent,
    reductions,
    searching,
    solving,
    sparse,
    varlen,
)
from memcalc.profiling.kernels.case import Case
from memcalc.profiling.kernels.probe import Probe
from memcalc.realize import versions

SCHEMA = "memcalc.kernels/1"

FILES = {  # by what is loaded then; the libraries that few methods need come last
    "all_kernels": (attention, varlen, reductions, products, searching, sparse, recurrent, plain, quantized, choosing),
    "cufft": (fourier,),
    "convolutions": (convolving,),
    "cusolver": (solving,),
}
LEFT_OUT = frozenset(entry for file in (searching, recurrent, fourier, convolving, solving) for entry in file.LEFT_OUT)


def cases() -> Iterator[Case]:
    """Every case of every file here."""
    for loaded in FILES:
        yield from _cases(loaded)


def run(device: Device) -> Iterator[dict[str, Any]]:
    """Look at everything once, in a process that has not computed yet.

    Raises Unmeasurable on a device that does not record its allocations, or is no NVIDIA card.
    """
    facts = Facts()
    card = Card(device, facts)
    gpu = card.gpu()
    if gpu is None:
        raise Unmeasurable("the kernel table is of NVIDIA's cards")
    probe = Probe(device.memory)
    head = {"schema": SCHEMA, "gpu": gpu._asdict(), "versions": _versions(facts)}
    for fact in process.facts(probe, device.torch_name, card):
        yield head | fact
    for loaded in FILES:
        for case in _cases(loaded):
            yield {**head, "entry": case.entry, "arguments": case.arguments, **_look(case, probe, device.torch_name)}
        yield head | process.context(f"cuda_context_with_{loaded}", card)


def gpu_of(record: dict[str, Any]) -> Gpu:
    """The card of a record."""
    plain = record["gpu"]
    return Gpu(**{**plain, "capability": tuple(plain["capability"])})


def _cases(loaded: str) -> Iterator[Case]:
    for file in FILES[loaded]:
        yield from file.cases()


def _look(case: Case, probe: Probe, device: str) -> dict[str, Any]:
    if case.needs and importlib.util.find_spec(case.needs) is None:
        return {"refused": f"the package {case.needs} is not installed"}
    try:
        with warnings.catch_warnings(action="ignore"):  # torch lists why a pinned kernel cannot run
            inside, result = probe.inside(case.prepare(device))
            if case.value is not None:
                return {"measured": {"value": case.value(inside, result)}}
    except Exception as error:  # noqa: BLE001 - a kernel that this card or torch lacks must not end the suite
        return {"refused": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"}
    return {"measured": inside._asdict()}


def _versions(facts: Facts) -> dict[str, str]:
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": facts.values["driver"]}
    return versions.installed() | {name: str(version) for name, version in found.items() if version is not None}
