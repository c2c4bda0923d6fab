"""A model made deeper: copies of some of its layers, each put in behind the layer that it copies."""

from copy import deepcopy
from typing import Any

from torch import nn

from memcalc.anatomy import goes_by
from memcalc.methods.base import Method
from memcalc.methods.of_adapters.bottleneck import ATTENTION, FEED_FORWARD
from memcalc.realize.freezing import anatomy_of


def expand(model: Any, method: Method) -> None:
    """Put the copies in that a method asks for; they change nothing at first.

    Source: Wu et al. 2024, arXiv:2401.02415, section 3.2; LLaMA-Factory, scripts/llama_pro.py.
    """
    anatomy = anatomy_of(model)
    stack = method.stack(anatomy.depth)
    if len(stack) == anatomy.depth:
        return
    pretrained = model.get_submodule(anatomy.layers)
    layers: list[nn.Module] = []
    for index, number in enumerate(stack):
        layer = pretrained[number]
        if layer in layers:
            layer = deepcopy(layer, {id(model.config): model.config})
            _silence(layer)
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # where it finds its part of a cache
                module.layer_idx = index
        layers.append(layer)
    path, _, attribute = anatomy.layers.rpartition(".")
    setattr(model.get_submodule(path), attribute, nn.ModuleList(layers))
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[number] for number in stack]
    model.config.num_hidden_layers = len(stack)


def put_in(model: Any, method: Method) -> set[int]:
    """The ids of parameters and buffers that copies of layers have brought."""
    anatomy = anatomy_of(model)
    copies = [model.get_submodule(f"{anatomy.layers}.{index}") for index in method.copied(anatomy.depth)]
    return {id(tensor) for copy in copies for tensor in (*copy.parameters(), *copy.buffers())}


def _silence(layer: nn.Module) -> None:
    """A layer's sub-layers end in zeros, so that only its residual sums are left."""
    for name, module in layer.named_modules():
        if goes_by(name, (*ATTENTION, *FEED_FORWARD)):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
