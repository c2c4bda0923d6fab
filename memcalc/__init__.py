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
    from memcalc.workload import Workload

__version__ = "0.1.0"
__all__ = ["Footprint", "Workload", "__version__", "estimate"]

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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'memcalc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
