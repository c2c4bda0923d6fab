"""GaLore's optimizer, of one class or for each parameter apart."""

from contextlib import nullcontext
from typing import Any

import torch

from memcalc.errors import InvalidWorkload
from memcalc.optimizers import OPTIMIZERS
from memcalc.realize.freezing import anatomy_of
from memcalc.realize.watch import Watch
from memcalc.workload import Workload

Groups = list[dict[str, Any]]


def make(
    cls: Any, model: Any, workload: Workload, options: dict[str, Any], watch: Watch | None
) -> torch.optim.Optimizer:
    """The optimizer over two groups, of which the second one's gradients are projected."""
    groups = _groups(model, workload)
    if OPTIMIZERS[workload.optimizer].layer_by_layer:
        on_host = torch.device(next(model.parameters()).device) if workload.device == "cpu" else nullcontext()
        with on_host:  # a number of the optimizer that stands for all, which counts where the host is the device
            return _layer_by_layer(cls, groups, options, watch)
    made: torch.optim.Optimizer = cls(groups, **options)
    return made


def _groups(model: Any, workload: Workload) -> Groups:
    """What is stepped as it is, and the targets' weights; the measured step looks for a new projection.

    Source: transformers 5.24, trainer_optimizer.py, _setup_low_rank_optimizer, _get_galore_optimizer.
    """
    from transformers.pytorch_utils import Conv1D

    targets = workload.method.targets(anatomy_of(model))
    for name in targets:
        if isinstance(model.get_submodule(name), Conv1D):
            raise InvalidWorkload(f"--method galore projects gradients of torch.nn.Linear: {name} is a Conv1D")
    weights = {f"{name}.weight" for name in targets}
    plain, projected = (
        [parameter for name, parameter in model.named_parameters() if (name in weights) is group]
        for group in (False, True)
    )
    steps_before = sum(item != "empty" for item in workload.history)
    found_anew = {"update_proj_gap": max(1, steps_before), "scale": 0.25, "proj_type": "std"}
    return [{"params": plain}, {"params": projected, "rank": workload.method.projected_rank, **found_anew}]


def _layer_by_layer(cls: Any, groups: Groups, options: dict[str, Any], watch: Watch | None) -> torch.optim.Optimizer:
    """An optimizer for each parameter, which steps when autograd has accumulated its gradient.

    Source: transformers 5.24, trainer_optimizer.py, _setup_low_rank_optimizer; trainer_pt_utils.py,
    LayerWiseDummyOptimizer, which stands for them all.
    """
    from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

    optimizers: dict[torch.Tensor, torch.optim.Optimizer] = {
        parameter: cls([{**group, "params": [parameter]}], **options)
        for group in groups
        for parameter in group["params"]
    }

    def accumulated(parameter: torch.Tensor) -> None:
        with nullcontext() if watch is None else watch.stepping(parameter):
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(accumulated)
    return LayerWiseDummyOptimizer(optimizer_dict=optimizers)
