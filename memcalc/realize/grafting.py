"""Modules of our own in a base model, of methods that peft does not have."""

from importlib import import_module
from typing import Any

import torch

from memcalc.realize.freezing import anatomy_of
from memcalc.realize.model import DTYPES
from memcalc.realize.modules.around import added
from memcalc.workload import Workload


def graft(model: Any, workload: Workload) -> None:
    """Put the modules of a method that has some of ours where they belong."""
    plain = workload.method.graft()
    if plain is None:
        return
    raised = workload.autocast_adapter_dtype and not workload.method.keeps_dtype

    def like(module: Any) -> dict[str, Any]:
        """A neighbour's device; fp32 where adapters are kept in it, else the dtype in which the module computes."""
        weight = module.weight
        dtype = weight.dtype if weight.is_floating_point() else DTYPES[workload.dtype]
        return {"device": weight.device, "dtype": torch.float32 if raised else dtype}

    targets = workload.method.targets(anatomy_of(model))
    file = import_module(f"memcalc.realize.modules.{plain['module']}")
    options = {name: value for name, value in plain.items() if name != "module"}
    file.put(model, [name for name, _ in model.named_modules() if name in targets], like, **options)
    let_train(model, workload)
    model.train(workload.training)


def let_train(model: Any, workload: Workload) -> None:
    """Say which of our parameters train; peft freezes them with the model that it is put around."""
    used = workload.training or not workload.method.frozen_in_use
    for parameter, trains in added(model):
        parameter.requires_grad_(used and trains)
