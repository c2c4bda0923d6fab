"""peft around a base model: the config made of plain data, and what single methods need beside it."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.realize import versions
from memcalc.realize.freezing import freeze, thawed_in
from memcalc.realize.grafting import graft, let_train
from memcalc.realize.shifting import shift
from memcalc.workload import Workload

_TEXTLESS = {"prompt_tuning_init": "RANDOM", "tokenizer_name_or_path": None, "prompt_tuning_init_state_dict_path": None}
_BY_TASK = ("MULTITASK_PROMPT_TUNING", "POLY")
_MADE_ON_THE_DEVICE = ("TINYLORA", "SHADOW")  # else they leave new parameters on the host


def wrap(model: Any, workload: Workload, device: str) -> nn.Module:
    """peft's adapters around a loaded base model; the base itself where peft has no part in the method.

    Raises InvalidWorkload where the method or peft refuses.
    """
    if workload.method.attention_groups is not None:
        shift(model, workload.method.attention_groups)
    plain = workload.method.peft_config()
    if plain is None:
        freeze(model, workload.method)
        graft(model, workload)
        return model
    layers = getattr(model.config, "num_hidden_layers", 0)
    defaults = workload.method.peft_defaults(model.config.model_type, layers)
    plain |= {name: value for name, value in defaults.items() if not plain.get(name)}
    config = _config(plain, workload)
    from peft import get_peft_model

    graft(model, workload)
    thawed = thawed_in(model, workload.method)
    peft_type = str(plain["peft_type"])
    there = torch.device(device) if peft_type in _MADE_ON_THE_DEVICE else contextlib.nullcontext()
    try:
        with there, _without_its_warnings():
            wrapped: Any = get_peft_model(model, config, **_options(get_peft_model, workload))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidWorkload(f"peft refuses this: {_first_line(error)}") from error
    _check_saved(wrapped, plain.get("modules_to_save"))
    for parameter in thawed:
        parameter.requires_grad_()
    wrapped.thawed = thawed
    if workload.merged:
        return wrapped.merge_and_unload()
    for name, parameter in wrapped.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's current rank: peft means it not to train, and forgets where it moves it
            parameter.requires_grad_(requires_grad=False)
    let_train(model, workload)
    _bring_along(wrapped, device)
    if workload.device == "cpu":  # the host is the device: what peft leaves there counts
        for name, tokens in getattr(wrapped, "prompt_tokens", {}).items():
            wrapped.prompt_tokens[name] = tokens.to(device)
    return wrapped.train() if workload.training else wrapped.eval()


@contextlib.contextmanager
def _without_its_warnings() -> Iterator[None]:
    """LN_TUNING wraps any layer, and warns of each RMSNorm that it may not know it; LoRA turns Conv1D's flag itself.

    Source: peft 0.21, tuners_utils.py, tuners/lora/model.py.
    """
    with warnings.catch_warnings():
        for message in ("Unsupported layer type", "fan_in_fan_out is set to"):
            warnings.filterwarnings("ignore", message, UserWarning)
        yield


def _config(plain: Mapping[str, Any], workload: Workload) -> Any:
    """peft's own config. Fields that it does not know, of another version, are left out as peft leaves them out."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError as error:
        raise versions.not_importable(error) from error
    peft_type = str(plain["peft_type"])
    if peft_type not in PEFT_TYPE_TO_CONFIG_MAPPING:
        import peft

        known = ", ".join(sorted(str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING))
        raise NotModelled(f"peft {peft.__version__} has no {peft_type}: it has {known}")
    cls = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    if peft_type == "XLORA":
        _check_mixed(plain.get("adapters"))
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    given = {**plain, "task_type": "CAUSAL_LM", "inference_mode": not workload.training}
    given |= {key: value for key, value in _TEXTLESS.items() if key in plain}
    try:
        return cls(**{key: value for key, value in given.items() if key in fields - {"peft_type", "auto_mapping"}})
    except (ValueError, TypeError) as error:
        raise InvalidWorkload(f"peft refuses this: {_first_line(error)}") from error
    except ImportError as error:  # of a package that one initialization alone needs
        raise NotModelled(f"peft cannot do this here: {_first_line(error)}") from error


def _check_mixed(adapters: Any) -> None:
    """X-LoRA mixes trained adapters that peft reads: folders of this machine, nothing is fetched."""
    paths = list(adapters.values()) if isinstance(adapters, Mapping) else []
    missing = [path for path in paths if not os.path.isdir(str(path))]
    if not paths or missing:
        raise InvalidWorkload(
            'XLORA mixes adapters that are there: "adapters" must name folders with an adapter_config.json each, not '
            f"{shown(missing[0] if missing else adapters)}"
        )


def _check_saved(wrapped: nn.Module, wanted: list[str] | None) -> None:
    """peft says nothing of modules_to_save that no module goes by."""
    if wanted and not any(name.endswith(".modules_to_save") for name, _ in wrapped.named_modules()):
        raise InvalidWorkload(f"--modules-to-save {shown(','.join(wanted))} matches no module of this model")


def _options(get_peft_model: Any, workload: Workload) -> dict[str, Any]:
    """Options of get_peft_model, as far as the installed peft has them."""
    import inspect

    options = {"autocast_adapter_dtype": workload.autocast_adapter_dtype}
    known = inspect.signature(get_peft_model).parameters
    return {name: value for name, value in options.items() if name in known}


def _bring_along(model: nn.Module, device: str) -> None:
    """What peft leaves on the host moves to the device, as the user's or Trainer's model.to(device) does."""
    left = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type != device]
    if left:
        model.to(device)


def stepped(model: Any, step: int) -> None:
    """What a method asks the loop for after the optimizer's step of this number, before gradients are dropped:
    AdaLoRA's allocation of ranks. It fails where there are none to take away, so that no loop asks for it there.

    Source: peft 0.21, tuners/adalora/model.py, AdaLoraModel.update_and_allocate.
    """
    tuner: Any = model.base_model if uses_peft(model) else None
    if not hasattr(tuner, "update_and_allocate"):
        return
    config = tuner.peft_config[tuner.trainable_adapter_name]
    if config.target_r < config.init_r:
        tuner.update_and_allocate(step)


def kept_by_method(model: Any) -> Iterator[torch.Tensor]:
    """What a method keeps between steps, no parameters: of AdaLoRA's, how important every trained number is."""
    ranks = getattr(model.base_model, "rankallocator", None) if uses_peft(model) else None
    if ranks is not None:
        for kept in (ranks.ipt, ranks.exp_avg_ipt, ranks.exp_avg_unc):
            yield from kept.values()


def wants_tasks(model: Any) -> bool:
    """Whether a model's forward asks which task each row belongs to."""
    return uses_peft(model) and any(
        str(getattr(config.peft_type, "value", config.peft_type)) in _BY_TASK for config in model.peft_config.values()
    )


def uses_peft(model: nn.Module) -> bool:
    """Whether a model is one of peft's wrappers."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
