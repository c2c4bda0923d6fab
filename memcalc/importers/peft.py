"""peft's adapter_config.json: any method that peft knows, as plain data.

Source of the fields: peft 0.21, config.py, PeftConfigMixin, and the config of each tuner.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, final

from memcalc import methods
from memcalc.anatomy import DEFAULT_TARGETS, Anatomy
from memcalc.catalog.reading import place, read_object
from memcalc.errors import BadFile, InvalidWorkload, NotModelled, shown
from memcalc.methods.base import Method
from memcalc.options import coerced, names_of, options_of
from memcalc.resolving import check_method
from memcalc.workload import Workload

FILE = "adapter_config.json"
_INFORMATIVE = frozenset(
    {
        "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode", "megatron_core", "qalora_group_size",
        "fan_in_fan_out",  # peft sees for itself which layers are Conv1D
        # of prompts: the model's own sizes, and how they begin
        "token_dim", "num_attention_heads", "num_layers", "prompt_tuning_init", "prompt_tuning_init_text",
        "tokenizer_name_or_path", "tokenizer_kwargs", "prompt_tuning_init_state_dict_path", "prompt_tuning_init_task",
        "cpt_mask",
    }
)  # fmt: skip
_PLAIN_INITS = (  # of adapters' weights: they leave nothing behind
    True, False, None, "gaussian", "kaiming_uniform", "lycoris", "xavier_uniform", "zero",
)  # fmt: skip
_LISTED = ("target_modules", "feedforward_modules")  # or in one word, a pattern that fits whole names
_INITS = ("init_lora_weights", "init_weights", "init_ia3_weights")


@final
@dataclass(frozen=True)
class FromConfig(Method):
    """A method as peft's own config describes it. Only the real peft can run it."""

    config: Mapping[str, Any]

    def peft_config(self) -> dict[str, Any]:
        """The config itself; `peft_type` names the method."""
        return dict(self.config)

    def options(self) -> dict[str, Any]:
        """As a Workload's JSON holds it."""
        return {"peft_config": dict(self.config)}

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        """LoRA's: of other methods peft knows its own."""
        return DEFAULT_TARGETS.get(model_type, ()) if self.config["peft_type"] == "LORA" else ()

    def targets(self, model: Anatomy) -> NoReturn:
        """Refused: which modules it adapts is for peft to say."""
        raise NotModelled(
            f"estimate does not write peft's {self.config['peft_type']} as this config has it: "
            "memcalc trace runs the real one"
        )


def read(path: str) -> dict[str, Any]:
    """The config in a file, or in a folder's adapter_config.json. Raises BadFile."""
    given = os.path.expanduser(path)
    file = os.path.join(given, FILE) if os.path.isdir(given) else given
    if file != given and not os.path.exists(file):
        raise BadFile(place(path), f"this folder holds no {FILE}")
    return checked(read_object(file), place(file))


def checked(config: Any, source: str) -> dict[str, Any]:
    """A config with its peft_type in capitals. Raises BadFile where it names none."""
    if not isinstance(config, Mapping):
        raise BadFile(source, f"not a peft adapter's config: {shown(config)}")
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str) or not peft_type.isidentifier():
        raise BadFile(source, f'not a peft adapter\'s config: "peft_type" is {shown(peft_type)}')
    return {**config, "peft_type": peft_type.upper()}


def workload(model: Any, config: "str | Mapping[str, Any]", method: str | None = None, **options: Any) -> Workload:
    """The workload whose method a config describes; `options` are Workload's own, none of the method's.

    `method`, where it is given, must be of the same kind: it may imply more (qlora its quantization).
    Raises BadFile, InvalidWorkload or UnknownName.
    """
    plain = read(config) if isinstance(config, str) else checked(config, "--peft-config")
    name, described = method_of(plain)
    given = None if method is None else method.strip().lower().replace("-", "_")
    base = "lora" if given in (None, name) else methods.canonical_name(str(method))
    if not described.takes_checkpointing:
        options = {"checkpointing": False, **options}
    made = Workload.of(model, base, **options)
    if foreign := sorted(names_of(type(made.method)).keys() & {option.replace("-", "_") for option in options}):
        raise InvalidWorkload(f"--{foreign[0].replace('_', '-')} cannot go with --peft-config, which says it all")
    if given not in (None, name) and (made.method.peft_config() or {}).get("peft_type") != plain["peft_type"]:
        raise InvalidWorkload(f"--method {method} cannot go with a --peft-config of type {plain['peft_type']}")
    of_peft = given == str(plain["peft_type"]).lower()  # peft's word for the type, which says less than the config
    if given in (None, name) or (of_peft and methods.load(base).IMPLIES):
        workload = replace(made, method_name=name, method=described)
    else:
        workload = replace(made, method_name=base, method=_as_named(base, described))
    check_method(workload)
    return workload


def _as_named(name: str, described: Method) -> Method:
    """The method with those options that a name of ours implies and that peft's config has no word for.

    Raises InvalidWorkload where the config says otherwise.
    """
    given, said = described.peft_config() or {}, described.options()
    also: dict[str, Any] = {}
    for option, value in methods.load(name).IMPLIES.items():
        if option not in options_of(methods.load(name).METHOD) or said.get(option) == value:
            continue
        if option in given or option not in said:
            raise InvalidWorkload(f"--method {name} cannot go with a --peft-config that says otherwise of {option}")
        also[option] = value
    whole: Any = described
    return replace(whole, **also) if also else described


def from_json(data: Mapping[str, Any]) -> Workload:
    """As Workload.from_json, of one whose method is a config ("peft_config")."""
    if "peft_config" not in data:
        return Workload.from_json(data)
    made = Workload.from_json({key: value for key, value in data.items() if key not in ("peft_config", "method")})
    name, described = method_of(checked(data["peft_config"], "peft_config"))
    return replace(made, method_name=str(data.get("method", name)), method=described)


def method_of(config: Mapping[str, Any]) -> tuple[str, Method]:
    """The name and the method: of ours the one whose name says most of what the config says, else the config itself."""
    found = [(name, method) for name in methods.names() if (method := _read_as(name, config)) is not None]
    if found:
        return max(found, key=lambda each: len(methods.load(each[0]).IMPLIES))
    name = str(config["peft_type"]).lower()
    return ("dora" if config.get("use_dora") else name), FromConfig(dict(config))


def _read_as(name: str, config: Mapping[str, Any]) -> Method | None:
    """The config as the method of ours of that name; None where it is another, or where the config says more."""
    file = methods.load(name)
    plain = file.METHOD().peft_config()
    if plain is None or plain["peft_type"] != config["peft_type"]:
        return None
    own = _own_options(file.METHOD, config)
    if own is None:
        return None
    try:
        method = file.METHOD(**coerced(file.METHOD, own))
    except NotModelled:
        return None
    said = method.options()
    return method if all(_is_a(said.get(option), value) for option, value in file.IMPLIES.items()) else None


def _goes_without_saying(method: type[Method], key: str, value: object) -> bool:
    """A decoder alone; modules that the method takes anyway; LoRA's rank, of which AdaLoRA makes no use."""
    if key == "target_modules":
        return isinstance(value, str) and value in method.own_targets
    return (key == "num_transformer_submodules" and value == 1) or (key == "r" and "init_r" in names_of(method))


def _is_a(said: object, implied: object) -> bool:
    """Whether an option says what a method's name stands for, or says it more precisely: pissa_niter_16 for pissa."""
    return said == implied or (isinstance(said, str) and isinstance(implied, str) and said.startswith(implied))


def _is_a_switch(method: type[Method], key: str) -> bool:
    """Whether the key is an option of the method's that is on or off, as DEFT's init_weights is."""
    return isinstance(method().options().get(key), bool)


def _own_options(method: type[Method], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config as options of a method of ours; None where it says more."""
    fields = names_of(method)
    own: dict[str, Any] = {}
    for key, value in config.items():
        if key in _INITS and value in _PLAIN_INITS and not _is_a_switch(method, key):
            continue
        if key == "layers_to_transform" and isinstance(value, int):
            own[key] = [value]
        elif isinstance(value, Mapping) and any("," in pattern for pattern in value):  # no list of ours can hold it
            return None
        elif isinstance(value, Mapping) and key not in fields and value.keys() <= fields.keys():  # loftq_config
            own |= {fields[name]: inner for name, inner in value.items()}
        elif key in fields and key not in _LISTED:
            own[fields[key]] = value
        elif key in fields and (isinstance(value, list) or value in (None, "all-linear")):
            own[fields[key]] = [value] if isinstance(value, str) else value
        elif key not in _INFORMATIVE and value and not _goes_without_saying(method, key, value):
            return None
    return {name: value for name, value in own.items() if value is not None}
