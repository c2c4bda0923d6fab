"""bitsandbytes' layers through their own modules, on any device, without from_pretrained."""

# ruff: noqa: SLF001 - bitsandbytes has no public name for it

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from memcalc.errors import MissingPackage, NotModelled
from memcalc.realize import versions
from memcalc.realize.model import DTYPES
from memcalc.workload import Workload

FOUR_BIT = ("nf4", "fp4")
_PACKED = ("Linear4bit", "Linear8bitLt")
_EMBEDDINGS = ("lm_head", "embed_tokens", "wte", "wpe")  # names that TRL looks for


def replace_linears(model: Any, workload: Workload) -> None:
    """Put bitsandbytes' layers where transformers does: every linear layer but the head and tied or kept ones.

    Source: transformers 5.24, quantizers/quantizer_bnb_4bit.py and quantizer_bnb_8bit.py,
    _process_model_before_weight_loading.
    """
    if workload.quant not in (*FOUR_BIT, "int8"):
        raise NotModelled(f"--quant {workload.quant} cannot be built by trace and profile: they have nf4, fp4 and int8")
    try:
        import bitsandbytes  # noqa: F401  replace_with_bnb_linear needs it and does not say so
    except ImportError:
        raise MissingPackage("bitsandbytes", "quant") from None
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    if workload.quant == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=workload.quant,
            bnb_4bit_use_double_quant=workload.double_quant,
            bnb_4bit_compute_dtype=DTYPES[workload.dtype],
        )
    kept = versions.unpacked_modules(model)
    with _default_dtype(DTYPES[workload.dtype]):  # as from_pretrained does: the layers' biases are made in it
        replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    versions.mark_quantized(model, config)
    model.is_loaded_in_4bit = workload.quant in FOUR_BIT
    model.is_loaded_in_8bit = workload.quant == "int8"


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def is_packed(module: torch.nn.Module, name: str) -> bool:
    """Whether a module's parameter is one that is stored in 4 or 8 bits."""
    return name == "weight" and type(module).__name__ in _PACKED


def warm_up_bytes(module: torch.nn.Module) -> float:
    """Bytes of one packed weight as transformers' warm-up counts them (quantizers, quantized_element_size)."""
    return 0.5 if type(module).__name__ == "Linear4bit" else 1.0


def pack(module: Any, weight: torch.Tensor, device: str) -> None:
    """Quantize a weight that lies on the device already, Conv1D's transposed.

    Eight bits go over the host: a second copy, in fp16, comes back from it.
    Source: transformers 5.24, integrations/bitsandbytes.py, Bnb4bitQuantize.convert, Bnb8bitQuantize.convert;
    bitsandbytes 0.50.2, nn/modules.py, Params4bit._quantize, Int8Params._quantize.
    """
    from transformers.pytorch_utils import Conv1D

    old = module.weight
    if issubclass(getattr(module, "source_cls", torch.nn.Linear), Conv1D):  # transformers notes what it replaced
        weight = weight.T
    if type(module).__name__ == "Linear4bit":
        module.weight = type(old)(weight, requires_grad=False, **old.__dict__)._quantize(device)
        return
    import bitsandbytes.functional

    half = torch.empty_like(weight, dtype=torch.float16, device=device).copy_(weight)
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(half)
    module.weight = type(old)(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales)


def quantization_state(module: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors beside a packed weight: absmax, map, offset and those of the nested state; a row's scale.

    Of a module's own weight: a property of that name may make one (peft's CartridgeEncoder).
    """
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    state = getattr(weight, "quant_state", None)
    scales = getattr(weight, "SCB", None)
    found: list[torch.Tensor] = [scales] if isinstance(scales, torch.Tensor) else []
    while state is not None:
        found += [part for part in (state.absmax, state.code, state.offset) if isinstance(part, torch.Tensor)]
        state = state.state2
    return found


def shared_maps() -> list[torch.Tensor]:
    """The 8-bit maps that bitsandbytes makes once a process."""
    import sys

    functional = sys.modules.get("bitsandbytes.functional")
    return [] if functional is None else list(functional.name2qmap.values())


def prepare(model: Any) -> bool:
    """Prepare for k-bit training as peft does; whether it empties the allocator's cache (from peft 0.20 on)."""
    import inspect

    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return "auto_clear_cache" in inspect.signature(prepare_model_for_kbit_training).parameters


def cast_back(model: torch.nn.Module) -> None:
    """TRL's step after peft's wrapping, for bf16: norms to fp32, fp32 embeddings and head back to bf16.

    Source: trl 0.13, trainer/utils.py, peft_module_casting_to_bf16.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) or "norm" in name:
            module.to(torch.float32)
        elif any(part in name for part in _EMBEDDINGS):
            weight = getattr(module, "weight", None)
            if weight is not None and weight.dtype == torch.float32:
                module.to(torch.bfloat16)
