"""What only the built model and the installed libraries can tell: counts, the checkpoint's size."""

# ruff: noqa: SLF001 - torch keeps there which buffers are not saved

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memcalc.realize.adapters import uses_peft
from memcalc.realize.modules.around import added


def counted(model: Any) -> tuple[int, int]:
    """(total, trainable) parameters as peft counts them: packed weights by logical size, tied ones once.

    Source: peft 0.21, peft_model.py, get_nb_trainable_parameters.
    """
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = parameter.numel() if state is None else state.shape.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def checkpoint_bytes(model: Any) -> int:
    """Tensor bytes that save_pretrained writes: the adapters, or for full fine-tuning the whole model.

    Of a model with modules of our own: those, and what else trains; what trains unknown to peft is written besides.

    What several adapters share peft writes under each name. Source: peft 0.21, peft_model.py, save_pretrained.
    """
    stored = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                stored[f"{path}.{name}" if path else name] = buffer
    if uses_peft(model):
        from peft import get_peft_model_state_dict

        with _StayingOnMeta():
            stored = get_peft_model_state_dict(model, state_dict=stored, save_embedding_layers=False)
        written = [*stored.values(), *(parameter for parameter, _ in added(model)), *getattr(model, "thawed", ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in written)
    own = {id(parameter) for parameter, _ in added(model)}
    seen: dict[int, int] = {}
    for tensor in stored.values():
        if own and not (id(tensor) in own or tensor.requires_grad):
            continue
        storage = tensor.untyped_storage()
        seen[storage._cdata] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


class _StayingOnMeta(TorchDispatchMode):
    """Copies from meta to the host stay on meta: what is saved is counted, never written."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and args[0].is_meta:
            kwargs["device"] = args[0].device
        return func(*args, **kwargs)
