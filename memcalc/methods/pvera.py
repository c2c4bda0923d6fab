"""PVeRA: VeRA whose inner vector is drawn from a learned distribution."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, exp, mul, scale
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import clone, narrow, split
from memcalc.tape.tape import Tensor, like, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Pvera(OnLinears):
    """PVeRA: y = W x + b * (B z), z normal with mean and log-variance from d * (A x); A and B are random and shared by
    all targets, the vectors b and d trained (PVeRA: Probabilistic Vector-Based Random Matrix Adaptation, 2025,
    arXiv:2512.07703).

    Trainable parameters: d_out + 2 rank per target. Keeps for backward, of each target in the adapters' dtype: A x, the
    deviation and the noise, B z, but no input.
    """

    rank: int = option(256, "--rank", "rank of the shared matrices", aliases=("--r", "--pvera-r"), size=True)
    target: tuple[str, ...] = target_option()
    pvera_dropout: float = option(0.0, "--pvera-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "pvera_only"))
    save_projection: bool = option(
        True, "--save-projection/--no-save-projection", "the checkpoint holds the shared matrices too"
    )
    projection_prng_key: int = option(0, "--projection-prng-key", "seed of the shared matrices", least=0)
    d_initial: float = option(0.1, "--d-initial", "every number of the vector d at first")
    sample_at_inference: bool = option(
        False, "--sample-at-inference/--no-sample-at-inference", "draw in inference as well, instead of the mean"
    )

    def __post_init__(self) -> None:
        check_dropout("--pvera-dropout", self.pvera_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/pvera/layer.py, Linear.forward. Its call keeps the first x."""
        behind = m.adapter(name, "pvera_lambda_b.default", (w.d_out,))
        between = m.adapter(name, "pvera_lambda_d.default", (2 * self.rank,))
        a = m.shared(name, "pvera_A.default", (2 * self.rank, m.common.d_in), "buffer")
        b = m.shared(name, "pvera_B.default", (m.common.d_out, self.rank), "buffer")
        if w.packed:
            return self._over_packed(m, x, w, (behind, between, a, b))
        result = w.linear(x)
        first, second = narrow(a, 1, w.d_in), narrow(b, 0, w.d_out)
        x_cast = cast(x, between.dtype)
        mean, log_variance = self._halves(mul(between, linear(dropout(x_cast, self._rate(m)), first)))
        result = add(result, mul(behind, linear(self._drawn(m, mean, log_variance), second)))
        return cast(result, x.dtype)

    def _over_packed(self, m: "Builder", x: Tensor, w: "Weight", parts: tuple[Tensor, ...]) -> Tensor:
        """tuners/pvera/bnb.py: casts by hand outside autocast only, and what it casts stays so."""
        behind, between, a, b = parts
        result = w.linear(x)
        if w.packed == 4:
            result = clone(result)
        by_hand = tape.autocast is None
        dtype = result.dtype
        x_cast = cast(x, between.dtype) if by_hand else x
        first, second = narrow(a, 1, w.d_in), narrow(b, 0, w.d_out)
        dropped = dropout(cast(x_cast, between.dtype), self._rate(m))
        mean, log_variance = self._halves(mul(between, linear(dropped, first)))
        output = mul(behind, linear(self._drawn(m, mean, log_variance), second))
        if by_hand:
            output = cast(output, dtype)
        result = add(result, output)
        return cast(result, x_cast.dtype)

    def _rate(self, m: "Builder") -> float:
        return self.pvera_dropout if m.training else 0.0

    def _halves(self, x: Tensor) -> list[Tensor]:
        return split(x, (self.rank, self.rank), len(x.shape) - 1)

    def _drawn(self, m: "Builder", mean: Tensor, log_variance: Tensor) -> Tensor:
        """PveraLayer._reparametrize."""
        if not (m.training or self.sample_at_inference):
            return mean
        deviation = exp(scale(log_variance))
        noise = Tensor(like(deviation.data, "randn_like"))
        return add(mean, mul(noise, deviation))

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        return nbytes if self.save_projection or not buffer else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PVERA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "pvera_dropout": self.pvera_dropout,
            "bias": self.bias,
            "save_projection": self.save_projection,
            "projection_prng_key": self.projection_prng_key,
            "d_initial": self.d_initial,
            "sample_at_inference": self.sample_at_inference,
        }


METHOD = Pvera
