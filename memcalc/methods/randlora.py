"""RandLoRA: a full-rank update from random bases that all layers share."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_eight_bits, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, scale
from memcalc.tape.ops.linear import linear, matmul
from memcalc.tape.ops.views import clone, narrow, reshape, swap
from memcalc.tape.tape import Array, Tensor, gemm, new, record, save, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class RandLora(OnLinears):
    """RandLoRA: y = W x + alpha / rank * sum over n of B_n L_n A G_n x, A and B_n random and shared by all targets,
    L_n and G_n diagonal and trained (Albert et al. 2025, arXiv:2502.00987, section 4).

    Trainable parameters: n * (rank + min(d_in, d_out)) per target, n = min(d_in, d_out) / rank rounded up.
    Keeps for backward: as LoRA of rank n * rank, whose matrix on the narrow side is made anew in every forward.
    """

    rank: int = option(
        32, "--rank", "rank of a basis; a lower one means more of them", aliases=("--r", "--randlora-r"), size=True
    )
    alpha: float = option(640.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--randlora-alpha",))
    target: tuple[str, ...] = target_option()
    randlora_dropout: float = option(
        0.0, "--randlora-dropout", "dropout of the adapters' input", aliases=("--dropout",)
    )
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "randlora_only"))
    save_projection: bool = option(True, "--save-projection/--no-save-projection", "the checkpoint holds the bases too")
    sparse: bool = option(False, "--sparse/--no-sparse", "bases of few numbers: stored as others are")
    very_sparse: bool = option(False, "--very-sparse/--no-very-sparse", "bases of fewer: stored as others are")
    projection_prng_key: int = option(0, "--projection-prng-key", "seed of the bases", least=0)

    def __post_init__(self) -> None:
        check_dropout("--randlora-dropout", self.randlora_dropout)

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Downwards, the least rank of each number of bases: a higher one with as many trains more."""
        sides = {min(shape) for shape in targets}
        return sorted({ceil(side / count) for side in sides for count in range(1, side + 1)}, reverse=True)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/randlora/layer.py, Linear.forward; bnb.py, Linear4bit.forward over a packed weight."""
        refuse_eight_bits(w, name)
        narrow_side = min(w.d_in, w.d_out)
        count = ceil(narrow_side / self.rank)
        scales = m.adapter(name, "randlora_lambda.default", (self.rank, count))
        gains = m.adapter(name, "randlora_gamma.default", (count, narrow_side))
        least = min(m.common.d_out, m.common.d_in)
        a = m.shared(name, "randlora_A.default", (self.rank, 1, least), "buffer")
        b = m.shared(
            name,
            "randlora_B.default",
            (max(m.common.d_out, m.common.d_in), ceil(least / self.rank), self.rank),
            "buffer",
        )
        result = w.linear(x)
        if w.packed == 4:
            result = clone(result)
        random = narrow(narrow(b, 0, max(w.d_in, w.d_out)), 1, count)
        flat_b = reshape(random, (random.shape[0], count * self.rank))
        flat_a = reshape(_scaled(narrow(a, 2, narrow_side), scales, gains), (self.rank * count, narrow_side))
        turned = narrow_side != w.d_in  # the input is the wide side
        first, second = (flat_b, flat_a) if turned else (flat_a, flat_b)
        del random
        rate = self.randlora_dropout if m.training else 0.0
        if not w.packed:
            x_cast = cast(x, flat_a.dtype)
            result = add(
                result, scale(_times(_times(dropout(x_cast, rate), first, turned=turned), second, turned=turned))
            )
            return cast(result, x.dtype)
        by_hand = tape.autocast is None
        x_cast = cast(x, flat_a.dtype) if by_hand else x
        dropped = dropout(cast(x_cast, flat_a.dtype), rate)
        output = _times(_times(dropped, first, turned=turned), second, turned=turned)
        if by_hand:
            output = cast(output, result.dtype)
        result = add(result, scale(output))
        return cast(result, x_cast.dtype)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The bases stand in the file once for every target, and once more."""
        return nbytes * (targets + 1 if self.save_projection else 0) if buffer else nbytes

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "RANDLORA",
            "r": self.rank,
            "randlora_alpha": self.alpha,
            "target_modules": self.target_modules,
            "randlora_dropout": self.randlora_dropout,
            "bias": self.bias,
            "save_projection": self.save_projection,
            "sparse": self.sparse,
            "very_sparse": self.very_sparse,
            "projection_prng_key": self.projection_prng_key,
        }


def _times(x: Tensor, base: Tensor, *, turned: bool) -> Tensor:
    """F.linear by a base, or by its transpose."""
    return matmul(x, base) if turned else linear(x, base)


def _scaled(a: Tensor, scales: Tensor, gains: Tensor) -> Tensor:
    """UniqueBaseGrad: (rank, 1, width) by (rank, n) and (n, width) -> (rank, n, width).

    Allocates: a product on the way, the output. Saves: all three inputs. Backward allocates: for the gradient of the
    scales a product and its sum, then the same for the gains.
    """
    rank, _, width = a.shape
    count = gains.shape[0]
    once = new((rank, count, width), gains.dtype, "mul")
    out = new((rank, count, width), gains.dtype, "mul")
    del once
    kept = [save(x.data) for x in (a, scales, gains)] if tape.grad else []

    def backward(g: Array) -> list[Array | None]:
        held = [saved.get() for saved in kept]
        product = new(out_shape, g.dtype, "mul")
        by_scale = new((count, rank), g.dtype, "bmm")
        gemm(rank * count * width)
        del product
        product = new(out_shape, g.dtype, "mul")
        by_gain = new((count, width), g.dtype, "bmm")
        gemm(rank * count * width)
        del product, held
        return [None, swap(by_scale, 0, 1), by_gain]

    out_shape = out.shape
    return record(out, (a, scales, gains), backward, python=True)


METHOD = RandLora
