"""BEFT: a bias of its own behind value projections."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import DEFAULT_TARGETS, Target
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.tape.ops.elementwise import add, cast
from memcalc.tape.ops.views import view

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Beft(OnLinears):
    """BEFT: y = W x + b + b' where x becomes values, b' alone trains (Huang et al. 2025, arXiv:2509.15974).

    Trainable parameters: d_out per target. Keeps for backward: nothing, since a bias's gradient is a sum of the
    incoming one; what lies above the lowest target keeps what the frozen model needs.
    """

    kind: ClassVar[Kind] = "selective"
    target: tuple[str, ...] = target_option()

    def rewritten(self, target: Target) -> int:
        return target.added

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        """LoRA's but the query, of which peft's table has the models that have values of their own.

        Source: peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING.
        """
        return tuple(name for name in DEFAULT_TARGETS.get(model_type, ()) if name != "q_proj")

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/beft/layer.py, Linear.forward."""
        refuse_conv1d(m, w, name)
        bias = view(m.adapter(name, "beft_bias.default", (1, w.d_out), "bias"), (w.d_out,))
        result = w.linear(x)
        dtype = result.dtype
        result = cast(add(result, bias), dtype)
        return result

    def peft_config(self) -> dict[str, Any]:
        return {"peft_type": "BEFT", "target_modules": self.target_modules}


METHOD = Beft
