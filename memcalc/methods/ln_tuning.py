"""Norm tuning: copies of the norms alone train."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from memcalc.anatomy import ALL_LINEAR, Anatomy, copied_modules, goes_by, names_a_layer
from memcalc.errors import shown
from memcalc.methods.base import Method
from memcalc.options import option

# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING
_BEFORE_BOTH = ("input_layernorm", "post_attention_layernorm")
_FOUR = (*_BEFORE_BOTH, "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm")
_NORMS = {
    "bloom": (*_BEFORE_BOTH, "ln_f"),
    "falcon": (*_BEFORE_BOTH, "ln_f"),
    "gemma": (*_BEFORE_BOTH, "norm"),
    "gemma2": _FOUR,
    "gemma3_text": _FOUR,
    "gpt2": ("ln_1", "ln_2", "ln_f"),
    "llama": (*_BEFORE_BOTH, "norm"),
    "mistral": (*_BEFORE_BOTH, "norm"),
    "qwen2": ("post_attention_layernorm",),
    "qwen3": ("post_attention_layernorm",),
    # not in peft's table: the norms around attention and MLP, and the last one
    "cohere": ("input_layernorm", "norm"),
    "glm4": (*_BEFORE_BOTH, "post_self_attn_layernorm", "post_mlp_layernorm", "norm"),
    "gpt_bigcode": ("ln_1", "ln_2", "ln_f"),
    "gpt_neox": (*_BEFORE_BOTH, "final_layer_norm"),
    "granite": (*_BEFORE_BOTH, "norm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm", "norm"),
    "opt": ("self_attn_layer_norm", "final_layer_norm"),
    "phi3": (*_BEFORE_BOTH, "norm"),
    "starcoder2": (*_BEFORE_BOTH, "norm"),
}


@final
@dataclass(frozen=True, slots=True)
class LnTuning(Method):
    """LN tuning: the norms train, all else is frozen (Zhao et al. 2023, arXiv:2312.11420, section 3.1).

    Trainable parameters: those of each target, hidden for an RMSNorm, 2 hidden for a LayerNorm. peft trains a copy
    beside each frozen one, in the base's dtype. Keeps for backward: as the frozen model from the lowest target on, and
    each target's normed input.
    """

    merges: ClassVar[bool] = True
    target: tuple[str, ...] = option(
        (),
        "--target",
        "modules to copy and train, by name or suffix; default: peft's norms for the model",
        aliases=("--target-modules", "--targets"),
    )

    @property
    def layers_alike(self) -> bool:
        return not names_a_layer(self.target)

    def targets(self, model: Anatomy) -> frozenset[str]:
        wanted = self.target or self.default_targets(model.model_type)
        if ALL_LINEAR in wanted:
            return frozenset(name for name in model.linears if name != model.head)
        flag = f"--target {shown(','.join(wanted))}"
        return copied_modules(flag, model, lambda module: goes_by(module, wanted))

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _NORMS.get(model_type, ())

    def copy_of(self, module: str, targets: frozenset[str]) -> str:
        return "ln_tuning_layers.default" if module in targets else ""

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LN_TUNING",
            "target_modules": ALL_LINEAR if ALL_LINEAR in self.target else list(self.target) or None,
        }


METHOD = LnTuning
