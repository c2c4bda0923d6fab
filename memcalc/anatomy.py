"""What a model consists of, by name, and which of it the words of a user mean."""

from collections.abc import Callable
from typing import NamedTuple

from memcalc.errors import InvalidWorkload, NotModelled, shown

ALL_LINEAR = "all-linear"

# Of LoRA and its kin. peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
_QUERY_VALUE = ("q_proj", "v_proj")
_FUSED = ("query_key_value",)
DEFAULT_TARGETS = {
    "bloom": _FUSED,
    "falcon": _FUSED,
    "gemma": _QUERY_VALUE,
    "gemma2": _QUERY_VALUE,
    "gemma3_text": _QUERY_VALUE,
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "gpt_neox": _FUSED,
    "llama": _QUERY_VALUE,
    "mistral": _QUERY_VALUE,
    "opt": _QUERY_VALUE,
    "qwen2": _QUERY_VALUE,
    "qwen3": _QUERY_VALUE,
    # not in peft's table: the same layers by the names that these models have
    "cohere": _QUERY_VALUE,
    "glm4": _QUERY_VALUE,
    "granite": _QUERY_VALUE,
    "olmo2": _QUERY_VALUE,
    "phi3": ("qkv_proj",),
    "starcoder2": _QUERY_VALUE,
}


class Anatomy(NamedTuple):
    """What a method may ask of the base model that it acts on. Names are full ones, in order of registration."""

    model_type: str
    parameters: tuple[str, ...]  # a tied head's weight goes by the embedding's name alone
    linears: tuple[str, ...]  # linear layers
    head: str  # the language-model head
    layers: str  # the path of the repeated layers
    depth: int  # how many of them there are
    embedding: str = ""  # the tokens' embedding
    attends_by_interface: bool = True  # whether its attention calls a function that another can be put in place of

    @property
    def modules(self) -> list[str]:
        """The modules that have parameters of their own, and the head, whose weight may be the embedding's."""
        return list(dict.fromkeys([*(name.rpartition(".")[0] for name in self.parameters), self.head]))

    @property
    def containers(self) -> set[str]:
        """The modules that consist of others."""
        found: set[str] = set()
        for module in self.modules:
            above = module.rpartition(".")[0]
            while above and above not in found:
                found.add(above)
                above = above.rpartition(".")[0]
        return found


class Target(NamedTuple):
    """A module beside which something trains, in numbers of its parameters."""

    name: str
    model_type: str
    weight: int
    bias: int
    added: int  # what trains beside it


def match_targets(wanted: tuple[str, ...], model: Anatomy) -> frozenset[str]:
    """Full names of the adapted modules among the model's linear layers.

    `wanted` are names or suffixes ("q_proj" adapts every "….q_proj"), or all-linear: every linear layer but
    the head. Raises InvalidWorkload where no name matches.
    Source: peft 0.21.2, tuners/tuners_utils.py, check_target_module_exists, _maybe_include_all_linear_layers.
    """
    if ALL_LINEAR in wanted:
        return frozenset(name for name in model.linears if name != model.head)
    found = frozenset(name for name in model.linears if goes_by(name, wanted))
    if not found:
        known = sorted({name.rpartition(".")[2] for name in model.linears})
        raise InvalidWorkload(
            f"--target {shown(','.join(wanted))} matches no linear layer; this model has {', '.join(known)}"
        )
    return found


def copied_modules(flag: str, model: Anatomy, wanted: Callable[[str], bool]) -> frozenset[str]:
    """The modules of which peft trains a copy, of those that have parameters of their own.

    Raises InvalidWorkload where none is wanted, NotModelled where one that consists of others is.
    """
    found = frozenset(filter(wanted, model.modules))
    whole = sorted(filter(wanted, model.containers))
    if whole:
        raise NotModelled(f"{flag}: estimate does not write a copy of the whole {whole[0]}: memcalc trace runs it")
    if not found:
        known = sorted({name.rpartition(".")[2] for name in model.modules})
        raise InvalidWorkload(f"{flag} matches none of {', '.join(known)}")
    return found


def goes_by(module: str, wanted: tuple[str, ...]) -> bool:
    """Whether a module (full name) is one of the `wanted`, names or suffixes of whole parts."""
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def names_a_layer(names: tuple[str, ...]) -> bool:
    """Whether any of the names goes by a number, such as a layer's."""
    return any(part.isdigit() for name in names for part in name.split("."))
