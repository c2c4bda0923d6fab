"""torch's optimizer for a workload, and fp16's loss scaler."""

import importlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from memcalc.optimizers import OPTIMIZERS
from memcalc.workload import Workload


def make_optimizer(model: nn.Module, workload: Workload) -> torch.optim.Optimizer:
    """The optimizer over all that trains; its states are made in its first step."""
    described = OPTIMIZERS[workload.optimizer]
    module, _, name = described.torch_class.rpartition(".")
    options: dict[str, Any] = dict(described.torch_options)
    if workload.momentum:
        options["momentum"] = workload.momentum
    of_trainer = workload.loop == "trainer"
    trained = _trainer_groups(model) if of_trainer else [{"params": _trained(model.parameters())}]
    optimizer: torch.optim.Optimizer = getattr(importlib.import_module(module), name)(trained, lr=1e-4, **options)
    if of_trainer and optimizer.state and workload.device == "cuda":
        _prepare(optimizer)
    return optimizer


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
