"""torch's optimizer for a workload, and fp16's loss scaler."""

import importlib
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
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer = getattr(importlib.import_module(module), name)(trained, lr=1e-4, **options)
    return optimizer


def make_scaler(workload: Workload, device: str) -> torch.amp.GradScaler | None:
    """GradScaler under fp16 autocast, as accelerate and hand-written loops use it."""
    return torch.amp.GradScaler(device) if workload.amp == "fp16" else None
