"""LoHa: a frozen weight plus the element-wise product of two low-rank matrices."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.formats import HALF, promote
from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_lycoris import layer
from memcalc.methods.of_lycoris.layer import Dropouts
from memcalc.options import option
from memcalc.tape.ops.elementwise import mul, scale
from memcalc.tape.ops.linear import mm
from memcalc.tape.tape import Array, Tensor, gemm, like, new, record, save, tape, wants

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class LoHa(OnLinears):
    """LoHa: y = W x + alpha / rank * ((A1 B1) * (A2 B2)) x, the inner product element by element
    (Nam et al. 2021, arXiv:2108.06098, section 2.2).

    Trainable parameters: 2 * rank * (d_in + d_out) per target. Keeps for backward, per target: the update, d_out x
    d_in, and the input in the adapters' dtype; backward makes both products anew.
    """

    rank: int = option(8, "--rank", "rank of each of the two matrices", aliases=("--r", "--loha-r"), size=True)
    alpha: float = option(8.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--loha-alpha",))
    target: tuple[str, ...] = target_option()
    rank_dropout: float = option(0.0, "--rank-dropout", "dropout of whole rows of the update")
    module_dropout: float = option(0.0, "--module-dropout", "of whole targets in a forward")

    def __post_init__(self) -> None:
        self._dropouts.check()

    @property
    def _dropouts(self) -> Dropouts:
        return Dropouts(self.rank_dropout, self.module_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        layer.refuse(m, w, name, self._dropouts)
        a, b = (w.d_out, self.rank), (self.rank, w.d_in)
        shapes = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": a, "hada_w2_b": b}
        factors = [m.adapter(name, f"{part}.default", shape) for part, shape in shapes.items()]
        return layer.adapted(m, x, w, lambda: [_update(*factors)], self._dropouts)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LOHA",
            "r": self.rank,
            "alpha": self.alpha,
            "target_modules": self.target_modules,
            "rank_dropout": self.rank_dropout,
            "module_dropout": self.module_dropout,
        }


def _update(a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor) -> Tensor:
    """HadaWeight: (A1 B1) * (A2 B2) times a number, of A (p, r) and B (r, q) -> (p, q).

    Allocates: both products, theirs, the output. Saves: all four. Backward allocates: the gradient scaled; then for
    either pair the other one's product, its product with the gradient, the gradients of A and B.
    """
    wanted = any(map(wants, (a1, b1, a2, b2)))
    outer, tape.grad = tape.grad, False
    out = scale(mul(mm(a1, b1), mm(a2, b2))).data
    tape.grad = outer
    if wanted and a1.dtype in HALF and out.dtype != a1.dtype:
        raise InvalidWorkload(
            f"--amp {out.dtype} cannot go with adapters in {a1.dtype}: LoHa's backward multiplies both itself"
        )
    kept = [save(x.data) for x in (a1, b1, a2, b2)] if wanted else []

    def backward(g: Array) -> list[Array]:
        held_a1, held_b1, held_a2, held_b2 = (saved.get() for saved in kept)
        size = prod(g.shape) * held_a1.shape[1]  # of any product here
        scaled = like(g, "mul")
        temp = _times_product(scaled, held_a2, held_b2, size)
        first = [_product(x.shape, temp.dtype, size) for x in (held_a1, held_b1)]
        temp = _times_product(scaled, held_a1, held_b1, size)
        second = [_product(x.shape, temp.dtype, size) for x in (held_a2, held_b2)]
        del temp
        return first + second

    return record(out, (a1, b1, a2, b2), backward, python=True)


def _times_product(g: Array, a: Array, b: Array, size: int) -> Array:
    product = _product((a.shape[0], b.shape[1]), a.dtype, size)
    return new(product.shape, promote(g.dtype, product.dtype), "mul")


def _product(shape: tuple[int, ...], dtype: str, size: int) -> Array:
    out = new(shape, dtype, "mm")
    gemm(size)
    return out


METHOD = LoHa
