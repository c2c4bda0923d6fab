"""PEANuT: a small network that reads a weight and writes its update."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.linears import OnLinears, refuse_conv1d, refuse_eight_bits, refuse_packed, target_option
from memcalc.options import option
from memcalc.tape.blocks import activation
from memcalc.tape.ops.elementwise import add, cast, scale
from memcalc.tape.ops.linear import linear, matmul, mm
from memcalc.tape.ops.views import transpose
from memcalc.tape.tape import Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Peanut(OnLinears):
    """PEANuT: y = (W + scaling * f(W)) x with f(W)^T = g(W^T A^T) B^T, g an activation and `depth` layers before and
    behind the middle, which have residuals (Zhong et al. 2024, arXiv:2410.01870).

    Trainable parameters: 2 * rank * d_out + 2 * depth * rank^2 per target. Keeps for backward, per target: W in the
    adapters' dtype, f(W), which is as large, the input, and two blocks d_in x rank for each layer.
    """

    rank: int = option(32, "--rank", "width of the network", aliases=("--r", "--peanut-r"), size=True)
    depth: int = option(0, "--depth", "layers before its middle, and as many behind", least=0)
    act_fn: str = option("relu", "--act-fn", "its activation, by transformers' name")
    scaling: float = option(1.0, "--scaling", "the update is scaled by it")
    target: tuple[str, ...] = target_option()

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/peanut/layer.py, Linear.forward."""
        refuse_conv1d(m, w, name)
        refuse_packed(w, name)
        refuse_eight_bits(w, name)  # whose whole numbers peft reads, without their scales
        a = m.adapter(name, "peanut_A.default.weight", (self.rank, w.d_out))
        b = m.adapter(name, "peanut_B.default.weight", (w.d_out, self.rank))
        encoders, decoders = (self._layers(m, name, part) for part in ("encoders", "decoders"))
        result = w.linear(x)
        update = self._update(w.dense(), a, b, encoders, decoders)
        x_cast = cast(x, update.dtype)
        delta = matmul(x_cast, transpose(update, 0, 1))
        return add(result, cast(delta, result.dtype))

    def _layers(self, m: "Builder", name: str, part: str) -> list[Tensor]:
        shape = (self.rank, self.rank)
        return [m.adapter(name, f"peanut_{part}.default.{n}.weight", shape) for n in range(self.depth)]

    def _update(self, weight: Tensor, a: Tensor, b: Tensor, encoders: list[Tensor], decoders: list[Tensor]) -> Tensor:
        """Linear._compute_delta_weight: (d_out, d_in)."""
        turned = cast(transpose(weight, 0, 1), a.dtype)
        hidden = activation(mm(turned, transpose(a, 0, 1)), self.act_fn)
        residuals = []
        for encoder in encoders:
            residuals.append(hidden)
            hidden = activation(linear(hidden, encoder), self.act_fn)
        for decoder, residual in zip(decoders, reversed(residuals), strict=True):
            hidden = activation(linear(hidden, decoder), self.act_fn)
            hidden = add(hidden, residual)
        hidden = linear(hidden, b)
        return transpose(scale(hidden), 0, 1)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PEANUT",
            "r": self.rank,
            "depth": self.depth,
            "act_fn": self.act_fn,
            "scaling": self.scaling,
            "target_modules": self.target_modules,
        }


METHOD = Peanut
