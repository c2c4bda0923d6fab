"""A checkpoint's own weights in place of random ones. Only safetensors: nothing that a file brings is executed."""

import copy
import os.path
from typing import Any

from memcalc.catalog.find import Model, other_names
from memcalc.errors import BadFile, InvalidWorkload
from memcalc.realize.loading import Unloaded
from memcalc.workload import Workload


def fill(base: Unloaded, model: Model) -> None:
    """Copy the model's checkpoint into a base model that is still on the host.

    Raises BadFile where there is none, or where it is another model's.
    """
    place = checkpoint_of(model)
    config = copy.deepcopy(base.model.config)
    if hasattr(config, "quantization_config"):  # packing comes later, when the weights go to the device
        del config.quantization_config
    try:
        loaded: Any = type(base.model).from_pretrained(
            place, config=config, dtype=config.dtype, use_safetensors=True, trust_remote_code=False
        )
        for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
            base.values[name].copy_(tensor.data)
    except (OSError, KeyError, RuntimeError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadFile(place, f"no weights for --pretrained: {reason}") from None


def refuse_copies(base: Unloaded, workload: Workload) -> None:
    """Raise InvalidWorkload where the method has put layers in that no checkpoint has."""
    if workload.method.copied(base.model.config.num_hidden_layers):
        raise InvalidWorkload(
            f"--pretrained cannot go with --method {workload.method_name}: the checkpoint lacks the layers that it adds"
        )


def checkpoint_of(model: Model) -> str:
    """The folder or hub id that holds a model's weights; of a catalog name the first hub id that it stands for."""
    if os.path.isfile(model.name):
        return os.path.dirname(model.name) or "."
    if os.path.isdir(model.name) or "/" in model.name:
        return model.name
    ids = [name for name, key in other_names().items() if key == model.name and "/" in name]
    if not ids:
        raise InvalidWorkload(
            f"--pretrained: no checkpoint of {model.name} is known; --model takes a folder or a hub id"
        )
    return ids[0]
