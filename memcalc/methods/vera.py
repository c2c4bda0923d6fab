"""VeRA: LoRA's update from two random matrices that all layers share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, mul
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import clone, narrow

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Vera(OnLinears):
    """VeRA: y = W x + b * (B (d * (A x))), A and B random and shared by all targets, the vectors b and d trained
    (Kopiczko et al. 2023, arXiv:2310.11454, section 3.2).

    Trainable parameters: d_out + rank per target. Keeps for backward: A x and B (d * (A x)) of each target, in the
    adapters' dtype, but no input: the matrices that it meets are frozen. These have room for the widest target.
    """

    rank: int = option(256, "--rank", "rank of the shared matrices", aliases=("--r", "--vera-r"), size=True)
    target: tuple[str, ...] = target_option()
    vera_dropout: float = option(0.0, "--vera-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "vera_only"))
    save_projection: bool = option(
        True, "--save-projection/--no-save-projection", "the checkpoint holds the shared matrices too"
    )
    projection_prng_key: int = option(0, "--projection-prng-key", "seed of the shared matrices", least=0)
    d_initial: float = option(0.1, "--d-initial", "every number of the vector d at first")

    def __post_init__(self) -> None:
        check_dropout("--vera-dropout", self.vera_dropout)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/vera/layer.py, Linear.forward. Its call keeps the first x."""
        behind = m.adapter(name, "vera_lambda_b.default", (w.d_out,))
        between = m.adapter(name, "vera_lambda_d.default", (self.rank,))
        a = m.shared(name, "vera_A.default", (self.rank, m.common.d_in), "buffer")
        b = m.shared(name, "vera_B.default", (m.common.d_out, self.rank), "buffer")
        result = w.linear(x)
        dtype = result.dtype
        if w.packed == 4:
            result = clone(result)
        first, second = narrow(a, 1, w.d_in), narrow(b, 0, w.d_out)
        x_cast = cast(x, between.dtype)
        rate = self.vera_dropout if m.training else 0.0
        result = add(result, mul(behind, linear(mul(between, linear(dropout(x_cast, rate), first)), second)))
        result = cast(result, dtype)
        return cast(result, x.dtype)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        return nbytes if self.save_projection or not buffer else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "VERA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "vera_dropout": self.vera_dropout,
            "bias": self.bias,
            "save_projection": self.save_projection,
            "projection_prng_key": self.projection_prng_key,
            "d_initial": self.d_initial,
        }


METHOD = Vera
