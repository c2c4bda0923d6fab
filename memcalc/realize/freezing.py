"""Methods that peft has no part in: some of the base model's own parameters train, the others are frozen."""

from typing import Any

from torch import nn

from memcalc.anatomy import Anatomy
from memcalc.formats import refuse_packed_training
from memcalc.methods.base import Method


def freeze(model: Any, method: Method) -> None:
    """Freeze all parameters but those that the method trains; k-bit preparation has frozen those too."""
    anatomy = anatomy_of(model)
    trained = method.trained(anatomy, method.targets(anatomy))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained and parameter.is_floating_point())


def thawed_in(model: Any, method: Method) -> list[nn.Parameter]:
    """The parameters that train although peft, which is put around the model next, freezes them."""
    names = method.thawed(anatomy_of(model))
    found = {name: parameter for name, parameter in model.named_parameters() if name in names}
    for name, parameter in found.items():
        if not parameter.is_floating_point():
            refuse_packed_training(name)
    return list(found.values())


def anatomy_of(model: Any) -> Anatomy:
    """The real model as a method sees it: its layers are the outermost list of as many modules as its config says."""
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    depth = getattr(model.config, "num_hidden_layers", 0)
    stacks = [name for name, one in modules.items() if isinstance(one, nn.ModuleList) and len(one) == depth]
    head = model.get_output_embeddings()
    return Anatomy(
        model_type=model.config.model_type,
        parameters=tuple(name for name, _ in model.named_parameters()),
        linears=tuple(name for name, one in modules.items() if isinstance(one, nn.Linear | Conv1D)),
        head=next((name for name, one in modules.items() if one is head), ""),
        layers=stacks[0] if stacks else "",
        depth=depth if stacks else 0,
        attends_by_interface=bool(getattr(model, "_supports_attention_backend", False)),
    )
