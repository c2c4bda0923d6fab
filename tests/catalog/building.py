"""The catalog's models as transformers and the tape build them, counted."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from memcalc import families
from memcalc.catalog.fields import Fields
from memcalc.catalog.find import DEFAULT_GPU, Model, find_gpu
from memcalc.catalog.parameters import total_parameters
from memcalc.methods.base import Method
from memcalc.step.declaring import declare
from memcalc.tape.attending import Attention


def counted(model: Model) -> int | None:
    """Parameters as the catalog counts them, from the config's numbers."""
    return total_parameters(Fields(model.config, model.name))


def built(config: Mapping[str, Any]) -> int:
    """Parameters of the model that transformers builds on meta."""
    return sum(_built(config).values())


def built_by_layers(config: Mapping[str, Any]) -> int:
    """The same from the first two layers: all layers of a model here have the same shapes."""
    depth = "n_layer" if "n_layer" in config else "num_hidden_layers"
    sizes = _built({**config, depth: 2})
    one = sum(size for name, size in sizes.items() if re.search(r"\.(h|layers)\.1\.", name))
    return sum(sizes.values()) + int(config[depth] - 2) * one


def _built(config: Mapping[str, Any]) -> dict[str, int]:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**values))
    assert type(model).__name__ == config["architectures"][0]
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def declared(model: Model) -> int:
    """Parameters that estimate's forward of the model asks for. Raises NotModelled."""
    family = families.find(model.config["model_type"])
    attention = Attention(family.ATTENTIONS[0], find_gpu(DEFAULT_GPU))
    base = declare(family, family.read(model), Method(), attention).base
    return sum(prod(each.shape) for each in base.values() if each.kind != "buffer")
