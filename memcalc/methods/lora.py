"""LoRA: a frozen weight plus a low-rank update."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import DEFAULT_TARGETS, Anatomy, Method, match_targets, names_a_layer
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, scale
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import clone
from memcalc.tape.tape import tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder, Weight
    from memcalc.tape.tape import Tensor


@final
@dataclass(frozen=True, slots=True)
class Lora(Method):
    """LoRA: y = W x + (alpha / rank) B A x with W frozen (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Trainable parameters: rank * (d_in + d_out) per target, d_out more with lora_bias.
    Keeps for backward: the input of each target (cast to fp32 under peft's autocast_adapter_dtype) and A x.
    """

    rank: int = option(
        8, "--rank", "rank of the update, 1 to min(d_in, d_out)", aliases=("--lora-r", "--lora-rank", "--r")
    )
    alpha: float = option(8.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--lora-alpha",))
    target: tuple[str, ...] = option(
        (),
        "--target",
        "adapted linear layers, by name or suffix, or all-linear; default: peft's for the model",
        aliases=("--target-modules", "--targets"),
    )
    lora_dropout: float = option(0.0, "--lora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "lora_only"))
    use_rslora: bool = option(False, "--use-rslora/--no-use-rslora", "scale by alpha / sqrt(rank) (rsLoRA)")

    def __post_init__(self) -> None:
        if not 0 <= self.lora_dropout < 1:
            raise InvalidWorkload(f"--lora-dropout must be at least 0 and below 1, not {self.lora_dropout}")

    @property
    def layers_alike(self) -> bool:
        return not names_a_layer(self.target)

    def targets(self, model: Anatomy) -> frozenset[str]:
        return match_targets(self.target or self.default_targets(model.model_type), model)

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return DEFAULT_TARGETS.get(model_type, ())

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        biases = {name: name.removesuffix(".bias") for name in model.parameters if name.endswith(".bias")}
        if self.bias == "none":
            return frozenset()
        return frozenset(name for name, module in biases.items() if self.bias == "all" or module in targets)

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        if name not in m.targets:
            return w.linear(x)
        most = min(w.d_in, w.d_out)
        if self.rank > most:
            raise InvalidWorkload(
                f"--rank {self.rank} is above the {w.d_out} x {w.d_in} matrix of {name}: at most {most}"
            )
        a = m.adapter(name, "lora_A.default.weight", (self.rank, w.d_in))
        b = m.adapter(name, "lora_B.default.weight", (w.d_out, self.rank))
        return self._over_packed(m, x, w, a, b) if w.packed else self._over_plain(m, x, w, a, b)

    def _over_plain(self, m: "Builder", x: "Tensor", w: "Weight", a: "Tensor", b: "Tensor") -> "Tensor":
        """peft 0.21.2, tuners/lora/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
        result = w.linear(x)
        dtype = result.dtype
        x_cast = cast(x, a.dtype)
        result = add(result, scale(linear(linear(dropout(x_cast, self._rate(m)), a), b)))
        return cast(result, dtype)

    def _over_packed(self, m: "Builder", x: "Tensor", w: "Weight", a: "Tensor", b: "Tensor") -> "Tensor":
        """peft 0.21.2, tuners/lora/bnb.py, Linear4bit.forward: a cloned output, casts by hand outside autocast only."""
        result = w.linear(x)
        result = clone(result)
        by_hand = tape.autocast is None
        x_cast = cast(x, a.dtype) if by_hand else x
        output = scale(linear(linear(dropout(x_cast, self._rate(m)), a), b))
        if by_hand:
            output = cast(output, result.dtype)
        return add(result, output)

    def _rate(self, m: "Builder") -> float:
        return self.lora_dropout if m.training else 0.0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": "all-linear" if "all-linear" in self.target else list(self.target) or None,
            "bias": self.bias,
            "use_rslora": self.use_rslora,
        }


METHOD = Lora
