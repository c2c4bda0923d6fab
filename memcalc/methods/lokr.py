"""LoKr: a frozen weight plus the Kronecker product of two small matrices."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt, prod
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_lycoris import layer
from memcalc.methods.of_lycoris.layer import Dropouts
from memcalc.options import option
from memcalc.tape.ops.elementwise import mul, scale
from memcalc.tape.ops.linear import mm
from memcalc.tape.ops.views import unsafe_view
from memcalc.tape.tape import Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class LoKr(OnLinears):
    """LoKr: y = W x + alpha / rank * (C kron D) x of C (l, m) and D (k, n), d_out = l k and d_in = m n, where D, and C
    too if it is asked for, is of low rank (Yeh et al. 2023, arXiv:2309.14859, section 3.2).

    Trainable parameters: l * m + k * n per target; rank * (k + n) for D where rank < max(k, n) / 2, and likewise for C
    under --decompose-both. Keeps for backward, per target: the update, d_out x d_in, C and D, and the input in the
    adapters' dtype; backward makes a matrix of the update's size for each of C and D.
    """

    rank: int = option(8, "--rank", "rank of what is decomposed", aliases=("--r", "--lokr-r"), size=True)
    alpha: float = option(8.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--lokr-alpha",))
    target: tuple[str, ...] = target_option()
    decompose_both: bool = option(
        False, "--decompose-both/--no-decompose-both", "the first, smaller matrix may be of low rank too"
    )
    decompose_factor: int = option(
        -1, "--decompose-factor", "of each width; -1: the divisor nearest to its square root", least=-1
    )
    rank_dropout: float = option(0.0, "--rank-dropout", "dropout of whole rows of the update")
    rank_dropout_scale: bool = option(
        False, "--rank-dropout-scale/--no-rank-dropout-scale", "rows that are kept are scaled up"
    )
    module_dropout: float = option(0.0, "--module-dropout", "of whole targets in a forward")

    def __post_init__(self) -> None:
        self._dropouts.check()

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Ranks in the order of what they train: two factors of a high rank are more than the whole matrix."""
        pairs = Counter(self._pair(*target) for target in targets)

        def count(rank: int) -> int:
            return sum(
                times * (_numbers(first, rank, whole=not self.decompose_both) + _numbers(second, rank))
                for (first, second), times in pairs.items()
            )

        return sorted(range(1, max((max(*second) for _, second in pairs), default=0) // 2 + 2), key=count)

    @property
    def _dropouts(self) -> Dropouts:
        return Dropouts(self.rank_dropout, self.module_dropout, "fp32", self.rank_dropout_scale)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        layer.refuse(m, w, name, self._dropouts)
        shapes = self._pair(w.d_out, w.d_in)
        first = self._matrix(m, name, "lokr_w1", shapes[0], whole=not self.decompose_both)
        second = self._matrix(m, name, "lokr_w2", shapes[1])
        return layer.adapted(m, x, w, partial(_update, first, second), self._dropouts)

    def _pair(self, d_out: int, d_in: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The shapes of the two matrices."""
        out_first, out_second = _factors(d_out, self.decompose_factor)
        in_first, in_second = _factors(d_in, self.decompose_factor)
        return (out_first, in_first), (out_second, in_second)

    def _matrix(
        self, m: "Builder", name: str, part: str, shape: tuple[int, int], *, whole: bool = False
    ) -> list[Tensor]:
        """One matrix of the product, or its two factors of low rank."""
        if whole or _is_whole(shape, self.rank):
            return [m.adapter(name, f"{part}.default", shape)]
        low = {"a": (shape[0], self.rank), "b": (self.rank, shape[1])}
        return [m.adapter(name, f"{part}_{side}.default", of_side) for side, of_side in low.items()]

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LOKR",
            "r": self.rank,
            "alpha": self.alpha,
            "target_modules": self.target_modules,
            "decompose_both": self.decompose_both,
            "decompose_factor": self.decompose_factor,
            "rank_dropout": self.rank_dropout,
            "rank_dropout_scale": self.rank_dropout_scale,
            "module_dropout": self.module_dropout,
        }


def _is_whole(shape: tuple[int, int], rank: int) -> bool:
    return rank >= max(shape) / 2


def _numbers(shape: tuple[int, int], rank: int, *, whole: bool = False) -> int:
    return prod(shape) if whole or _is_whole(shape, rank) else rank * sum(shape)


def _factors(width: int, wanted: int) -> tuple[int, int]:
    """Two numbers whose product is the width: the wanted one first where it divides; else the smaller one first, up to
    what is wanted, as near to each other as can be.

    Source: peft 0.21.2, tuners/lokr/layer.py, factorization.
    """
    if wanted > 0 and width % wanted == 0:
        return wanted, width // wanted
    most = isqrt(width) if wanted < 0 else min(isqrt(width), wanted)
    first = next((number for number in range(most, 0, -1) if width % number == 0), 1)
    return first, width // first


def _update(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """LoKrLayer.get_delta_weight."""
    w1 = mm(*first) if len(first) == 2 else first[0]
    w2 = mm(*second) if len(second) == 2 else second[0]
    return [_kronecker(w1, w2), w1, w2]


def _kronecker(w1: Tensor, w2: Tensor) -> Tensor:
    """make_kron: (l, m), (k, n) -> (l k, m n), scaled.

    Source: PyTorch 2.13, aten/src/ATen/native/LinearAlgebra.cpp, kron.
    """
    (rows, columns), (inner_rows, inner_columns) = w1.shape, w2.shape
    blocks = mul(unsafe_view(w1, (rows, 1, columns, 1)), unsafe_view(w2, (1, inner_rows, 1, inner_columns)))
    rebuild = unsafe_view(blocks, (rows * inner_rows, columns * inner_columns))
    del blocks
    return scale(rebuild)


METHOD = LoKr
