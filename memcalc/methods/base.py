"""The hooks that a PEFT method may answer, doing nothing by default. One file of this folder per method."""

from typing import TYPE_CHECKING, Any

from memcalc.errors import InvalidWorkload, shown
from memcalc.options import options_of

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder, Weight
    from memcalc.tape.tape import Tensor

ALL_LINEAR = "all-linear"

# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
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


class Method:
    """A way to fine-tune: which parameters train, what is added, and where it acts in the forward."""

    __slots__ = ()

    def targets(self, model_type: str, linears: list[str], head: str) -> frozenset[str]:
        """Which of the linear layers (full names) it adapts; `head` is the language-model head's name."""
        return frozenset()

    def trains(self, name: str, targets: frozenset[str]) -> bool:
        """Whether the base parameter of this name is trained."""
        return False

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """The output of the linear layer `name` for x (b, s, d_in)."""
        return w.linear(x)

    def peft_config(self) -> dict[str, Any] | None:
        """What peft is given to do the same, as plain data; None where peft takes no part."""
        return None

    def options(self) -> dict[str, Any]:
        """The method's options as plain JSON values."""
        values = {name: getattr(self, name) for name in options_of(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def match_targets(wanted: tuple[str, ...], model_type: str, linears: list[str], head: str) -> frozenset[str]:
    """Full names of the adapted modules among `linears`.

    `wanted` are names or suffixes ("q_proj" adapts every "….q_proj"), or all-linear: every linear layer but
    the head; empty is peft's default for the model type. Raises InvalidWorkload where no name matches.
    Source: peft 0.21.2, tuners/tuners_utils.py, check_target_module_exists, _maybe_include_all_linear_layers.
    """
    names = wanted or DEFAULT_TARGETS[model_type]
    if ALL_LINEAR in names:
        return frozenset(name for name in linears if name != head)
    found = frozenset(name for name in linears if any(name == w or name.endswith(f".{w}") for w in names))
    if not found:
        known = sorted({name.rpartition(".")[2] for name in linears})
        raise InvalidWorkload(
            f"--target {shown(','.join(names))} matches no linear layer; this model has {', '.join(known)}"
        )
    return found
