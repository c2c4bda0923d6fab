"""transformers' model from a plain config."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.realize import versions
from memcalc.realize.expanding import expand
from memcalc.workload import Workload

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_IMPLEMENTATIONS = {"auto": None, "eager": "eager", "flash": "flash_attention_2"}  # else sdpa
_SETTLED_HERE = ("architectures", "auto_map", "torch_dtype", "dtype", "quantization_config", "transformers_version")


def build(workload: Workload, device: str, *, trust_remote_code: bool = False) -> nn.Module:
    """The base model on "meta", or with real values on "cpu", in its stored dtype and in train mode.

    Source of the defaults: transformers 5.24, modeling_utils.py, PreTrainedModel._from_config.
    Raises InvalidWorkload or NotModelled where transformers cannot build it as it is asked for.
    """
    options: dict[str, Any] = {
        versions.dtype_keyword(): DTYPES[workload.dtype],
        "attn_implementation": _implementation(workload),
    }
    from transformers import AutoConfig, AutoModelForCausalLM

    if trust_remote_code and "auto_map" in workload.model.config:
        config = AutoConfig.from_pretrained(os.path.dirname(workload.model.source), trust_remote_code=True)
        options["trust_remote_code"] = True
    else:
        config = _config(AutoConfig, workload.model.config)
    config.use_cache = workload.use_cache
    try:
        with torch.device(device):
            model: Any = AutoModelForCausalLM.from_config(config, **options)
    except ImportError as error:  # of an optional package that this architecture needs
        raise NotModelled(f"transformers cannot build a {config.model_type} here: {_line(error)}") from error
    except ValueError as error:
        if any(words in str(error) for words in ("attention implementation", "does not support Flash Attention")):
            raise InvalidWorkload(
                f"--attention {workload.attention}: {config.model_type} models have none: use eager"
            ) from error
        raise InvalidWorkload(f"transformers refuses this model: {_line(error)}") from error
    expand(model, workload.method)
    model.to(device)  # some architectures make a parameter of numbers, on the host
    model.tie_weights()
    return model.train() if workload.training else model.eval()


def _implementation(workload: Workload) -> str | None:
    """transformers' name of the attention; None lets it choose."""
    if workload.device == "cpu" and workload.attention == "auto":
        return "eager"
    return _IMPLEMENTATIONS.get(workload.attention, "sdpa")


def _config(auto: Any, plain: Mapping[str, Any]) -> Any:
    rest = {key: value for key, value in plain.items() if key not in _SETTLED_HERE}
    model_type = rest.pop("model_type", None)
    if model_type is None:
        raise InvalidWorkload("the model's config.json names no model_type, so transformers cannot build it")
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        import transformers

        has_code = "auto_map" in plain
        remedy = "--trust-remote-code runs the code beside its config.json" if has_code else "a newer one may know it"
        raise NotModelled(f"transformers {transformers.__version__} has no model type {shown(model_type)}: {remedy}")
    try:
        return auto.for_model(model_type, **rest)
    except Exception as error:
        raise InvalidWorkload(f"transformers cannot read this config.json: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def enable_checkpointing(model: Any, workload: Workload) -> None:
    """Gradient checkpointing as transformers switches it on; over a frozen embedding its output is made to
    require gradients, as peft and TRL do (peft 0.21, peft_model.py, _prepare_model_for_gradient_checkpointing).
    """
    kwargs = {"use_reentrant": workload.reentrant}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(kwargs, **_every(workload))
    elif workload.checkpoint_every == 1:
        model.gradient_checkpointing_enable(kwargs)
    else:
        raise NotModelled("--checkpoint-every needs transformers 5.24 or newer in trace and profile")


def _every(workload: Workload) -> dict[str, int]:
    return {} if workload.checkpoint_every == 1 else {"every_n_layers": workload.checkpoint_every}
