"""ReLoRA's restart of peft's adapters."""

from typing import Any

import torch


@torch.no_grad()
def restart(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Merge each layer's update into its weight; draw A and B anew, with an optimizer that remembers nothing.

    Source: Guitaricet/relora, relora.py, ReLoRaModel.merge_and_reinit, and training_utils.py, optimizer_reset, over
    peft 0.21, tuners/lora/layer.py, Linear.merge and LoraLayer.reset_lora_parameters.
    """
    from peft.tuners.lora.layer import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.merge()
            layer.merged_adapters.clear()
            for adapter in layer.lora_A:
                layer.reset_lora_parameters(adapter, init_lora_weights=True)
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.is_floating_point():
                value.zero_()
