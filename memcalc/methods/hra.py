"""HRA: a frozen weight times a chain of Householder reflections."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.linears import OnLinears, refuse_conv1d, refuse_eight_bits, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import cast, quotient, scale, sub
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.reductions import vector_norm
from memcalc.tape.ops.views import select, transpose, view
from memcalc.tape.tape import Tensor, new
from memcalc.tape.weights import Plain

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Hra(OnLinears):
    """HRA: y = W H_1 … H_r x with H_i = I - 2 u_i u_i^T, |u_i| = 1 (Yuan et al. 2024, arXiv:2405.17484, section 3).

    Trainable parameters: r * d_in per target. Keeps for backward, per target: two matrices d_in x d_in for each
    reflection, the weight in the adapters' dtype and the product, both d_out x d_in, and the input cast.
    """

    rank: int = option(8, "--rank", "number of reflections", aliases=("--r", "--hra-r"), size=True)
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "hra_only"))
    apply_gs: bool = option(
        False, "--apply-gs/--no-apply-gs", "orthogonalize the vectors first (Gram-Schmidt)", aliases=("--apply-GS",)
    )

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/hra/layer.py, HRALinear.forward. Its call keeps the first x."""
        refuse_conv1d(m, w, name)
        refuse_eight_bits(w, name)  # whose whole numbers peft multiplies, without their scales
        if not isinstance(w, Plain):
            raise InvalidWorkload(f"--method hra multiplies the weight of {name} itself: peft cannot with a packed one")
        if self.apply_gs:
            raise NotModelled("estimate does not write --apply-gs: memcalc trace runs it")
        u = m.adapter(name, "hra_u.default", (w.d_in, self.rank))
        weight = Tensor(new((w.d_in, w.d_in), "fp32", "eye"))
        reflections = self._reflections(u)
        weight = mm(cast(weight, reflections.dtype), reflections)
        original = cast(Tensor(w.weight.data), weight.dtype)
        weight = mm(original, weight)
        bias = None if w.bias is None else cast(w.bias, weight.dtype)
        x_cast = cast(x, weight.dtype)
        return cast(linear(x_cast, weight, bias), x.dtype)

    def _reflections(self, u: Tensor) -> Tensor:
        """HRALayer.get_delta_weight: (d_in, r) -> (d_in, d_in)."""
        units = quotient(u, vector_norm(u, 0))
        width, rank = units.shape
        weight = Tensor(new((width, width), units.dtype, "eye"))
        for _ in range(rank):
            unit = view(select(units, 1), (width, 1))
            weight = sub(weight, mm(mm(scale(weight), unit), transpose(unit, 0, 1)))
        return weight

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "HRA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "bias": self.bias,
            "apply_GS": self.apply_gs,
        }


METHOD = Hra
