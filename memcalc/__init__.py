"""memcalc: how much GPU memory and how many trainable parameters a fine-tuning run needs, before it runs.

>>> import memcalc
>>> footprint = memcalc.estimate("llama-3.1-8b", method="qlora", seq_len=2048)
>>> footprint.fits("rtx4090")
fits on NVIDIA GeForce RTX 4090 (23.99 GiB): 11.62 GiB to spare
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pandas import DataFrame

    from memcalc.footprint import Footprint
    from memcalc.planning.budget import Budget
    from memcalc.planning.survey import Survey
    from memcalc.profiling.case import Case
    from memcalc.workload import Workload

__version__ = "0.1.0"
__all__ = [
    "Footprint",
    "TracedStep",
    "Workload",
    "__version__",
    "budget",
    "estimate",
    "profile",
    "survey",
    "to_frame",
    "trace",
    "trace_step",
]

_LAZY = {"Footprint": "memcalc.footprint", "TracedStep": "memcalc.tracing.own_step", "Workload": "memcalc.workload"}


def estimate(model: "str | Workload", method: str = "lora", *, top: int = 0, **options: Any) -> "Footprint":
    """What a fine-tuning run needs, in closed form: no torch, no GPU.

    `model` is a name, a size, a path, or a whole Workload; `options` are the command line's, with `_` for `-`;
    `top` asks for that many of the largest blocks. Raises InvalidWorkload or UnknownName for what cannot be.
    """
    from memcalc import estimating

    return estimating.estimate(_workload(model, method, options), top=top)


def trace(
    model: "str | Workload", method: str = "lora", *, top: int = 0, trust_remote_code: bool = False, **options: Any
) -> "Footprint":
    """What the real step needs, run on meta tensors with the installed transformers and peft: no GPU.

    Arguments as in `estimate`; `peft_config` (a file's path, or the config itself) may stand in place of `method`.
    `trust_remote_code`: modelling code beside the model's config.json is run, not refused.
    Raises MissingPackage, NotModelled, InvalidWorkload or UnknownName, RunFailed where the step itself fails.
    """
    from memcalc.tracing import record

    return record.trace(_workload(model, method, options), top=top, trust_remote_code=trust_remote_code)


def trace_step(step: "Callable[[], Any]", **how: Any) -> "Footprint":
    """What a step of your own needs: any model, loss and optimizer, written for "cuda", run without a GPU.

    `step` is called once to warm up, then once to be measured; `model` is a module that was built before, on meta.
    Further: `warm_up` (how often first), `gpu`, `name`, `alloc_conf`, `top`. `TracedStep` is the same as a context.

    >>> import torch
    >>> model = torch.nn.Linear(1024, 1024, device="meta")
    >>> def step():
    ...     model(torch.ones(8, 1024, device="cuda")).sum().backward()
    >>> memcalc.trace_step(step, model=model, gpu="l40s").peak_phase
    'backward'
    """
    from memcalc.tracing import own_step

    return own_step.trace_step(step, **how)


def profile(
    model: "str | Workload",
    method: str = "lora",
    *,
    top: int = 0,
    pretrained: bool = False,
    warmup: int = 1,
    steps: int = 3,
    snapshot: str | None = None,
    out: str | None = None,
    timeout: float | None = None,
    **options: Any,
) -> "Footprint":
    """What a fine-tuning run takes, measured on this machine's device in a process of its own.

    Random weights unless `pretrained`; `steps` further steps are timed after `warmup` others; `snapshot` and `out` are
    files: PyTorch's memory snapshot, and JSON lines to append the footprint to; `timeout` in seconds. A run that fails
    is a footprint too: see its `outcome`. The rest as in `estimate`. Raises NotModelled where there is no such device.
    """
    from memcalc.profiling import runner
    from memcalc.profiling.case import Case
    from memcalc.profiling.store import Store

    workload = _workload(model, method, options)
    case = Case(workload, pretrained=pretrained, warmup=warmup, steps=steps, top=top, snapshot=snapshot)
    store = Store(out) if out is not None else None
    footprint = runner.run(case, _measure, timeout=timeout)
    if store is not None:
        store.append(footprint)
        store.close()
    return footprint


def survey(model: str, *, only: "Iterable[str]" = (), **options: Any) -> "Survey":
    """How fine-tuning methods compare on a model: what each trains, stores, needs in a step and adds at inference.

    `only`: these methods; else all. `options` are the command line's, each for the methods that have it. A method that
    cannot be had is in `refused`, with its reason. `.to_frame()` is a DataFrame, `.to_json()` plain values.
    """
    from memcalc import methods
    from memcalc.planning import survey as planning

    return planning.survey(model, only or methods.names(), options)


def budget(
    model: str,
    params: int | str | None = None,
    *,
    percent: float | None = None,
    only: "Iterable[str]" = (),
    **options: Any,
) -> "Budget":
    """What a budget of trained parameters buys: each method at the largest size within it, and what that needs.

    `params` is a number or a text such as "10M"; `percent` is of the model's own parameters; without either each method
    is taken as it is given. The rest as in `survey`.
    """
    from memcalc import methods
    from memcalc.planning import budget as planning

    return planning.budget(model, only or methods.names(), options, params, percent)


def to_frame(footprints: "Iterable[Footprint]") -> "DataFrame":
    """A pandas DataFrame with a row for each footprint: its workload's options, levels, categories and phases.

    Bytes are whole numbers (Int64); what a footprint does not know is missing. Raises MissingPackage without pandas.
    """
    from memcalc.reporting import frames

    return frames.to_frame(footprints)


def _workload(model: "str | Workload", method: str, options: dict[str, Any]) -> "Workload":
    """The workload that these mean, the method named or described by a config of peft's."""
    from memcalc.workload import Workload

    if isinstance(model, Workload):
        return model
    config = options.pop("peft_config", None)
    if config is None:
        return Workload.of(model, method, **options)
    from memcalc.importers import peft

    return peft.workload(model, config, None if method == "lora" else method, **options)


def _measure(case: "Case") -> "Footprint":
    """On the CPU trace's recorder does the counting: neither of the two floors knows the other."""
    if case.workload.device == "cpu":
        from memcalc.profiling import host
        from memcalc.tracing.record import record

        return host.measure(case, record)
    from memcalc.profiling import measure

    return measure.measure(case)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'memcalc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
