"""HiRA: a frozen weight, each entry scaled by one of a low-rank product."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, mul
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.views import clone, transpose
from memcalc.tape.tape import Leaf, Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Hira(OnLinears):
    """HiRA: y = W x + (W * (B A)) x, the outer product of both matrices element by element. Paper: Huang et al. 2025,
    HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models, ICLR, section 3.

    Trainable parameters: rank * (d_in + d_out) per target. Keeps for backward, per target: W * (B A), d_out x d_in, and
    the input, both in the adapters' dtype, and a packed W dequantized; backward makes two more of that size.
    """

    rank: int = option(32, "--rank", "rank of the product", aliases=("--r", "--hira-r"), size=True)
    target: tuple[str, ...] = target_option()
    hira_dropout: float = option(0.0, "--hira-dropout", "dropout of the adapters' input", aliases=("--dropout",))

    def __post_init__(self) -> None:
        check_dropout("--hira-dropout", self.hira_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        a = m.adapter(name, "hira_A.default", (self.rank, w.d_in))
        b = m.adapter(name, "hira_B.default", (w.d_out, self.rank))
        rate = self.hira_dropout if m.training else 0.0
        return (_over_packed if w.packed else _over_plain)(x, w, a, b, rate)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "HIRA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "hira_dropout": self.hira_dropout,
        }


def _over_plain(x: Tensor, w: "Weight", a: Tensor, b: Tensor, rate: float) -> Tensor:
    """peft 0.21.2, tuners/hira/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
    result = w.linear(x)
    dtype = result.dtype
    product = mm(transpose(a, 0, 1), transpose(b, 0, 1))
    x_cast = cast(x, a.dtype)
    dropped = dropout(x_cast, rate)
    update = linear(dropped, mul(_weight(w), transpose(product, 0, 1)))
    result = add(result, update)
    return cast(result, dtype)


def _weight(w: "Weight") -> Tensor:
    """W (d_out, d_in). Conv1D's comes as a new parameter, which has a gradient that nobody looks at.

    Source: peft 0.21.2, utils/other.py, transpose.
    """
    weight = w.dense()
    return Tensor(weight.data, Leaf(weight.data, "activations")) if w.turned else weight


def _over_packed(x: Tensor, w: "Weight", a: Tensor, b: Tensor, rate: float) -> Tensor:
    """peft 0.21.2, tuners/hira/bnb.py, Linear4bit.forward; Linear8bitLt.forward, which dequantizes first."""
    if w.packed == 4:
        result = w.linear(x)
        result = clone(result)
        weight = w.dense()
    else:
        weight = w.dense()
        result = w.linear(x)
    by_hand = tape.autocast is None
    dtype = result.dtype
    x_cast = cast(x, a.dtype) if by_hand else x
    dropped = dropout(x_cast, rate)
    product = mm(b, a)
    scaled = mul(weight, product)
    update = linear(dropped, scaled)
    if by_hand:
        update = cast(update, dtype)
    result = add(result, update)
    if by_hand:
        result = cast(result, dtype)
    return result


METHOD = Hira
