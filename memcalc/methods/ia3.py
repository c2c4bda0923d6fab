"""(IA)³: keys, values and what is inside the MLP, scaled by trained vectors."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import ALL_LINEAR, Target, names_a_layer
from memcalc.errors import InvalidWorkload, shown
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import cast, mul, scale
from memcalc.tape.ops.views import clone, view
from memcalc.tape.tape import tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING; the last of each are scaled at
# their input, as TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING has it
_KEY_VALUE = ("k_proj", "v_proj", "down_proj")
_QUERY_VALUE = ("q_proj", "v_proj", "down_proj")
_FUSED = ("query_key_value", "dense_4h_to_h")
_GPT2 = ("c_attn", "mlp.c_proj")
_TARGETS = {
    "bloom": ("query_key_value", "mlp.dense_4h_to_h"),
    "falcon": _FUSED,
    "gemma": _QUERY_VALUE,
    "gemma2": _QUERY_VALUE,
    "gemma3_text": _QUERY_VALUE,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": _FUSED,
    "llama": _KEY_VALUE,
    "mistral": _KEY_VALUE,
    "opt": ("q_proj", "k_proj", "fc2"),
    "qwen2": _QUERY_VALUE,
    "qwen3": _QUERY_VALUE,
    # not in peft's tables: keys, values and the MLP's last layer, as the paper has it
    "cohere": _KEY_VALUE,
    "glm4": _KEY_VALUE,
    "granite": _KEY_VALUE,
    "olmo2": _KEY_VALUE,
    "phi3": ("qkv_proj", "down_proj"),
    "starcoder2": ("k_proj", "v_proj", "mlp.c_proj"),
}
_AUTO = ("auto",)


@final
@dataclass(frozen=True, slots=True)
class Ia3(OnLinears):
    """(IA)³: y = l * (W x), or y = W (l * x) in feedforward modules, l alone trains (Liu et al. 2022,
    arXiv:2205.05638, section 3.3).

    Trainable parameters: d_out per target, d_in where it is a feedforward module. Keeps for backward: the output of
    each target before it is scaled, the input of a feedforward module.
    """

    target: tuple[str, ...] = target_option()
    feedforward_modules: tuple[str, ...] = option(
        _AUTO,
        "--feedforward-modules",
        "those of the targets that are scaled at their input, by the end of their name, or none; auto: peft's for the "
        "model",
    )

    def __post_init__(self) -> None:
        strange = [name for name in self._named if self.target and name not in self.target]
        if strange and ALL_LINEAR not in self.target:
            raise InvalidWorkload(
                f"peft refuses this: --feedforward-modules {shown(strange[0])} is no item of --target"
            )

    @property
    def _named(self) -> tuple[str, ...]:
        """The feedforward modules that are given."""
        return () if self.feedforward_modules in (_AUTO, ("none",)) else self.feedforward_modules

    @property
    def layers_alike(self) -> bool:
        return not names_a_layer(self.target + self._named)

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _TARGETS.get(model_type, ())

    def _feedforward(self, model_type: str) -> tuple[str, ...]:
        """Ends of the names of the modules that are scaled at their input."""
        return self.default_targets(model_type)[-1:] if self.feedforward_modules == _AUTO else self._named

    def _at_input(self, name: str, model_type: str) -> bool:
        """Whether a target is scaled at its input. IA3Model._check_target_module_feedforward."""
        ends = self._feedforward(model_type)
        return bool(ends) and name.endswith(ends)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        at_input = self._at_input(name, m.sizes.model_type)
        shape = (1, w.d_in) if at_input else (w.d_out, 1)
        vector = m.adapter(name, "ia3_l.default", shape)
        return (_over_packed if w.packed else _over_plain)(x, w, vector, at_input=at_input)

    def rewritten(self, target: Target) -> int:
        """Behind a layer its bias is scaled too."""
        return target.weight if self._at_input(target.name, target.model_type) else target.weight + target.bias

    def peft_defaults(self, model_type: str, layers: int) -> dict[str, Any]:
        """A pattern names what a list would: peft does not hold it against the targets."""
        ends = "|".join(map(re.escape, self._feedforward(model_type)))
        return {
            **super(Ia3, self).peft_defaults(model_type, layers),
            "feedforward_modules": f".*({ends})" if ends else [],
        }

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "IA3",
            "target_modules": self.target_modules,
            "feedforward_modules": list(self._named) if self.target else [],
        }


def _over_plain(x: "Tensor", w: "Weight", vector: "Tensor", *, at_input: bool) -> "Tensor":
    """peft 0.21.2, tuners/ia3/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
    scaling = _flattened(vector)
    if at_input:
        x_cast = cast(x, vector.dtype)
        inner = cast(mul(x_cast, scaling), x.dtype)
        return w.linear(inner)
    result = w.linear(x)
    dtype = result.dtype
    result = cast(mul(result, scaling), dtype)
    return result


def _over_packed(x: "Tensor", w: "Weight", vector: "Tensor", *, at_input: bool) -> "Tensor":
    """peft 0.21.2, tuners/ia3/bnb.py, Linear4bit.forward, Linear8bitLt.forward."""
    scaling = _flattened(vector)
    by_hand = tape.autocast is None and x.dtype != "fp32"
    x_cast = cast(x, "fp32") if by_hand else x
    if at_input:
        result = w.linear(mul(x_cast, scaling))
        dtype = result.dtype
    else:
        result = w.linear(x_cast)
        dtype = result.dtype
        result = mul(result, scaling)
    if w.packed == 4:
        result = clone(result)
    if by_hand:
        result = cast(result, dtype)
    return result


def _flattened(vector: "Tensor") -> "Tensor":
    """One times the vector, whatever its shape: a block of its own."""
    return scale(view(vector, (vector.shape[0] * vector.shape[1],)))


METHOD = Ia3
