"""DeLoRA: a low-rank update whose directions are normalized, and bounded together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, added_in_place, at_least, cast, divide, dropout, mul, quotient
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.reductions import vector_norm
from memcalc.tape.tape import Tensor, like

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_NORMS = "delora_w_norm.default"


@final
@dataclass(frozen=True, slots=True)
class Delora(OnLinears):
    """DeLoRA: y = W x + lambda / rank * sum over i of b_i a_i / (|b_i| |a_i|) (n * x), n the norms of W's columns
    (Bini et al. 2025, arXiv:2503.18225, section 3).

    Trainable parameters: rank * (d_in + d_out) + 1 per target. Keeps for backward, per target in the adapters' dtype:
    the input times n, and two results of the rank's width.
    """

    rank: int = option(8, "--rank", "number of directions", aliases=("--r", "--delora-r"), size=True)
    delora_lambda: int = option(15, "--delora-lambda", "bound of the update at first, which trains")
    target: tuple[str, ...] = target_option()
    module_dropout: float = option(0.0, "--module-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "delora_only"))

    def __post_init__(self) -> None:
        check_dropout("--module-dropout", self.module_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/delora/layer.py, DeloraLinear.forward. Where peft adds in place, a block of zeros is."""
        refuse_conv1d(m, w, name)
        if w.packed:
            raise InvalidWorkload(f"--quant cannot go with --method delora: a packed weight has no norms ({name})")
        a = m.adapter(name, "delora_A.default", (self.rank, w.d_in))
        b = m.adapter(name, "delora_B.default", (w.d_out, self.rank))
        bound = m.adapter(name, "delora_lambda.default", (1,))
        norms = m.adapter(name, _NORMS, (w.d_in,), "buffer")
        base = w.linear(x)
        added = Tensor(like(base.data, "zeros_like"))
        dropped = dropout(x, self.module_dropout if m.training else 0.0)
        h = linear(mul(dropped, norms), a)
        size_of_a = at_least(vector_norm(a, 1))
        size_of_b = at_least(vector_norm(b, 0))
        scaling = quotient(divide(bound), mul(size_of_a, size_of_b))
        h = mul(h, scaling)
        h = linear(h, b)
        added = added_in_place(added, h)
        result = add(base, cast(added, base.dtype))
        return cast(result, x.dtype)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """DeloraLayer.reset_delora_parameters: the norms are computed before the rest is moved."""
        yield _NORMS
        yield ""

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The norms are in the file too."""
        return nbytes

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "DELORA",
            "r": self.rank,
            "delora_lambda": self.delora_lambda,
            "target_modules": self.target_modules,
            "module_dropout": self.module_dropout,
            "bias": self.bias,
        }


METHOD = Delora
