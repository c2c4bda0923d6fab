"""memcalc: how much GPU memory and how many trainable parameters a fine-tuning run needs, before it runs.

>>> import memcalc
>>> footprint = memcalc.estimate("llama-3.1-8b", method="qlora", seq_len=2048)
>>> footprint.fits("rtx4090")
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memcalc.footprint import Footprint
    from memcalc.profiling.case import Case
    from memcalc.workload import Workload

__version__ = "0.1.0"
__all__ = ["Footprint", "Workload", "__version__", "estimate", "profile", "trace"]

_LAZY = {"Footprint": "memcalc.footprint", "Workload": "memcalc.workload"}


def estimate(model: "str | Workload", method: str = "lora", *, top: int = 0, **options: Any) -> "Footprint":
    """What a fine-tuning run needs, in closed form: no torch, no GPU.

    `model` is a name, a size, a path, or a whole Workload; `options` are the command line's, with `_` for `-`;
    `top` asks for that many of the largest blocks. Raises InvalidWorkload or UnknownName for what cannot be.
    """
    from memcalc import estimating
    from memcalc.workload import Workload

    workload = model if isinstance(model, Workload) else Workload.of(model, method, **options)
    return estimating.estimate(workload, top=top)


def trace(model: "str | Workload", method: str = "lora", *, top: int = 0, **options: Any) -> "Footprint":
    """What the real step needs, run on meta tensors with the installed transformers and peft: no GPU.

    Arguments as in `estimate`; `peft_config` (a file's path, or the config itself) may stand in place of `method`.
    Raises MissingPackage, NotModelled, InvalidWorkload or UnknownName, RunFailed where the step itself fails.
    """
    from memcalc.importers import peft
    from memcalc.tracing import record
    from memcalc.workload import Workload

    if isinstance(model, Workload):
        workload = model
    elif (config := options.pop("peft_config", None)) is not None:
        workload = peft.workload(model, config, **options)
    else:
        workload = Workload.of(model, method, **options)
    return record.trace(workload, top=top)


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
    from memcalc.workload import Workload

    workload = model if isinstance(model, Workload) else Workload.of(model, method, **options)
    case = Case(workload, pretrained=pretrained, warmup=warmup, steps=steps, top=top, snapshot=snapshot)
    store = Store(out) if out is not None else None
    footprint = runner.run(case, _measure, timeout=timeout)
    if store is not None:
        store.append(footprint)
        store.close()
    return footprint


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
