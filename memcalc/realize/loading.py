"""From a built model to one on the device, in the order in which memory is asked for."""

# ruff: noqa: SLF001 - Module.to and from_pretrained write there too

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memcalc.realize import quantize, versions
from memcalc.realize.adapters import wrap
from memcalc.realize.expanding import put_in
from memcalc.realize.model import build, enable_checkpointing
from memcalc.realize.watch import Watch
from memcalc.workload import Workload

_KEPT_FREE = 1.2 * 1024**3  # of the card, by transformers' warm-up


@dataclass
class Unloaded:
    """A base model that is not on the device yet, its linears replaced where they will be packed."""

    model: Any
    values: dict[str, torch.Tensor]  # unquantized, by name: on meta, or real on the host


def build_base(workload: Workload, device: str, *, trust_remote_code: bool = False) -> Unloaded:
    """What from_pretrained knows before it reads a weight."""
    model: Any = build(workload, "meta" if device == "meta" else "cpu", trust_remote_code=trust_remote_code)
    values = {name: tensor.data for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    if workload.quant != "none":
        quantize.replace_linears(model, workload)
    return Unloaded(model, values)


def load(
    base: Unloaded,
    workload: Workload,
    device: str,
    watch: Watch,
    with_adapters: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[nn.Module, set[int]]:
    """The model on the device with everything that training needs but the optimizer: phase "load".

    `with_adapters` is entered while adapters are made. Returns the model and the ids of the base model's own
    parameters and buffers.
    """
    model = base.model
    watch.phase("load")
    if workload.load == "device-map":
        _device_map(model, base.values, device, workload)
    else:
        _module_to(model, device)
    base.values.clear()
    if workload.kbit_prepare != "none" and quantize.prepare(model):
        watch.empty_cache()
    if workload.checkpointing:
        enable_checkpointing(model, workload)
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())} - put_in(model, workload.method)
    with with_adapters():
        wrapped = wrap(model, workload, device)
    if workload.kbit_prepare == "trl":
        quantize.cast_back(wrapped)
    if workload.checkpointing and not model.get_input_embeddings().weight.requires_grad:
        model.enable_input_require_grads()
    watch.phase_end()
    return wrapped, own


def _on(device: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device=device).copy_(tensor)


def _module_to(model: nn.Module, device: str) -> None:
    """Module.to: children first, a module's parameters, then its buffers; shared ones once.

    Source: torch 2.13, nn/modules/module.py, Module._apply.
    """
    moved: dict[int, torch.Tensor] = {}

    def visit(module: nn.Module) -> None:
        for child in module.children():
            visit(child)
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in moved:
                moved[id(parameter)] = parameter
                parameter.data = _on(device, parameter.data)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                if id(buffer) not in moved:
                    moved[id(buffer)] = _on(device, buffer)
                module._buffers[name] = moved[id(buffer)]

    visit(model)


def _device_map(model: Any, values: dict[str, torch.Tensor], device: str, workload: Workload) -> None:
    """from_pretrained(device_map=…): a warm-up block, then weights by name, then buffers that no file holds.

    `values` are the unquantized ones. A quantized weight is loaded in half precision, packed, and the
    half dropped; loading is synchronous then.
    Source: transformers 5.24, modeling_utils.py (caching_allocator_warmup, _move_missing_keys_from_meta_to_device),
    core_model_loading.py (convert_and_load_state_dict_in_model, dot_natural_key).
    """
    if versions.warms_the_allocator_up():
        _warm_up(model, device, workload)
    persistent = [name for name in model.state_dict() if name in values]
    for name in sorted(persistent, key=versions.natural_order):
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        if quantize.is_packed(module, attribute):
            quantize.pack(module, _on(device, values[name]), device)
        elif attribute in module._buffers:
            module._buffers[attribute] = _on(device, values[name])
        else:
            _fill(module, attribute, _on(device, values[name]))
    for path, module in model.named_modules():
        for attribute in module._non_persistent_buffers_set:
            module._buffers[attribute] = _on(device, values[f"{path}.{attribute}" if path else attribute])


def _fill(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Give a parameter its value, whoever shares it; a bias of bitsandbytes' layers is a new one, as it is on meta."""
    parameter = getattr(module, name)
    if parameter.is_meta and not value.is_meta:
        setattr(module, name, nn.Parameter(value, requires_grad=parameter.requires_grad))
    else:
        parameter.data = value


def _warm_up(model: Any, device: str, workload: Workload) -> None:
    """One block of the weights' size, freed at once: a segment that the weights are cut from."""
    tied = versions.tied_names(model)
    nbytes = 0.0
    for name, tensor in model.state_dict().items():
        if name not in tied:
            path, _, attribute = name.rpartition(".")
            module = model.get_submodule(path)
            packed = quantize.is_packed(module, attribute)
            nbytes += tensor.numel() * (quantize.warm_up_bytes(module) if packed else tensor.element_size())
    nbytes = min(nbytes, workload.gpu.memory_bytes - _KEPT_FREE)
    torch.empty(int(nbytes // 2), dtype=torch.float16, device=device)
