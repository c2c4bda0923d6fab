"""torch's optimizer for a workload, and fp16's loss scaler."""

import importlib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn

from memcalc.errors import MissingPackage, NotModelled
from memcalc.optimizers import OPTIMIZERS, Trained, check_trained
from memcalc.realize import projecting
from memcalc.realize.model import DTYPES
from memcalc.realize.watch import Watch
from memcalc.workload import Workload

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
# extras of ours, by the package that they bring
_EXTRAS: Final = {
    "torch": "trace", "transformers": "trace", "peft": "trace", "bitsandbytes": "quant", "schedulefree": "optim",
    "galore_torch": "optim",
}  # fmt: skip


def make_optimizer(model: nn.Module, workload: Workload, watch: Watch | None = None) -> torch.optim.Optimizer:
    """The optimizer over all that trains; its states are made in its first step."""
    described = OPTIMIZERS[workload.optimizer]
    module, _, name = described.torch_class.rpartition(".")
    options: dict[str, Any] = dict(described.torch_options)
    if workload.momentum:
        options["momentum"] = workload.momentum
    of_trainer = workload.loop == "trainer"
    by_trainer = of_trainer and workload.method.optimizer_maker is None
    cls, options = getattr(_imported(module), name), {"lr": 1e-4, **options}
    if workload.method.projected_rank is not None:
        optimizer = projecting.make(cls, model, workload, options, watch)
    else:
        make = _make_of_method if workload.method.optimizer_maker else _make_of_loop
        optimizer = make(cls, model, workload, options)
    seen = _as_seen(optimizer, model if by_trainer else None)
    check_trained(workload.optimizer, seen, scaled=workload.amp == "fp16", clipped=workload.unscales)
    if by_trainer and options.get("optim_bits") == 8:
        _spare_embeddings(model)
    if of_trainer and optimizer.state and workload.device == "cuda":
        _prepare(optimizer)
    if hasattr(optimizer, "train"):  # schedulefree's, which know two modes
        optimizer.train()
    if name == "RAdamScheduleFree":
        _past_its_first_steps(optimizer)
    return optimizer


def _past_its_first_steps(optimizer: torch.optim.Optimizer) -> None:
    """Few steps are run here, and RAdam's first ones divide by nothing: a training run needs what its later ones need.

    Source: schedulefree 1.4.1, radam_schedulefree.py, RAdamScheduleFree.step (rho_t > 4).
    """
    for group in optimizer.param_groups:
        group["k"] = 5


def _make_of_loop(cls: Any, model: nn.Module, workload: Workload, options: dict[str, Any]) -> torch.optim.Optimizer:
    of_trainer = workload.loop == "trainer"
    made: torch.optim.Optimizer = cls(
        _trainer_groups(model) if of_trainer else [{"params": _trained(model.parameters())}], **options
    )
    return made


def kept_by(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Tensors that an optimizer keeps from step to step, GaLore's projections too; those of all for which it stands."""
    for one in getattr(optimizer, "optimizer_dict", {"": optimizer}).values():
        for value in (value for state in one.state.values() for value in state.values()):
            kept = getattr(value, "ortho_matrix", value)
            if isinstance(kept, torch.Tensor):
                yield kept


def _make_of_method(cls: Any, model: nn.Module, workload: Workload, options: dict[str, Any]) -> torch.optim.Optimizer:
    maker, optimizers = workload.method.optimizer_maker, _imported("peft.optimizers")
    assert maker is not None
    if not hasattr(optimizers, maker.function):
        raise NotModelled(f"peft {version('peft')} has no {maker.function}: a newer one has")
    made: torch.optim.Optimizer = getattr(optimizers, maker.function)(model, cls, **maker.options, **options)
    return made


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingPackage(package, _EXTRAS[package]) from None


def _as_seen(optimizer: torch.optim.Optimizer, model: nn.Module | None) -> list[Trained]:
    """The trained parameters; `model`: whose embeddings are spared."""
    modules = model.modules() if model is not None else ()
    spared = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [Trained(tuple(p.shape), _NAMES.get(p.dtype, ""), id(p) in spared) for p in parameters]


def _spare_embeddings(model: nn.Module) -> None:
    """bitsandbytes keeps what is an nn.Embedding's in 32 bits.

    Source: transformers 5.24, trainer.py, create_optimizer.
    """
    from bitsandbytes.optim import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def managed_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of bitsandbytes' paged states: in CUDA's managed memory, outside of torch's allocator."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if getattr(value, "is_paged", False))


def _prepare(optimizer: torch.optim.Optimizer) -> None:
    """States that a constructor has made are moved onto the device, the counts of steps too.

    Source: accelerate 1.15, optimizer.py, AcceleratedOptimizer.
    """
    from accelerate.optimizer import move_to_device

    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    optimizer.load_state_dict(move_to_device(optimizer.state_dict(), next(parameters).device))


def _trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _trainer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainer's two groups, stepped one after the other: what decays, then biases and norms, which do not.

    Its default decay is none at all.
    Source: transformers 5.24, trainer.py, create_optimizer, get_decay_parameter_names.
    """
    from transformers.trainer import Trainer

    names = frozenset(Trainer.get_decay_parameter_names(None, model))
    named = list(model.named_parameters())
    return [
        {"params": _trained(parameter for name, parameter in named if (name in names) is decays), "weight_decay": 0.0}
        for decays in (True, False)
    ]


def make_scaler(workload: Workload, device: str) -> torch.amp.GradScaler | None:
    """GradScaler under fp16 autocast, as accelerate and hand-written loops use it."""
    return torch.amp.GradScaler(device) if workload.amp == "fp16" else None
