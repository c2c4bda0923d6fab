"""OFT: a frozen weight behind a block-diagonal rotation of its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.linears import OnLinears, common_divisors, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.cayley import cayley
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.einsum import by_block
from memcalc.tape.ops.elementwise import added_in_place, cast, sub
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.placing import placed
from memcalc.tape.ops.views import reshape, transpose
from memcalc.tape.tape import Array, Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_BLOCK = 32  # peft's default


@final
@dataclass(frozen=True, slots=True)
class Oft(OnLinears):
    """OFT: y = W R x with R a rotation in r blocks, each the Cayley transform of a skew-symmetric matrix
    (Qiu et al. 2023, arXiv:2306.07280, section 3; its Neumann series: Qiu et al. 2025, arXiv:2506.19847, section 3).

    Trainable parameters: r * block * (block - 1) / 2 per target, r * block = d_in; one block's where all are shared.
    Keeps for backward: each target's input (cast to fp32 under peft's autocast_adapter_dtype), the rotation, the
    powers of its skew-symmetric matrices, the rotated input.
    """

    r: int = option(0, "--r", "number of blocks in place of their size", aliases=("--rank", "--oft-r"), least=0)
    oft_block_size: int = option(
        0, "--oft-block-size", f"size of a block; default: {_BLOCK} unless --r is given", least=0, size=True
    )
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "oft_only"))
    block_share: bool = option(False, "--block-share/--no-block-share", "one block for all of a target's")
    use_cayley_neumann: bool = option(
        True, "--use-cayley-neumann/--no-use-cayley-neumann", "the Neumann series in place of an inverse"
    )
    num_cayley_neumann_terms: int = option(5, "--num-cayley-neumann-terms", "terms of that series")
    coft: bool = option(False, "--coft/--no-coft", "constrained OFT: blocks are kept within --eps before each use")
    eps: float = option(6e-5, "--eps", "how far constrained OFT may rotate")
    module_dropout: float = option(0.0, "--module-dropout", "of whole blocks; peft takes it, and does nothing with it")

    def __post_init__(self) -> None:
        if self.r and self.oft_block_size:
            raise InvalidWorkload("--r and --oft-block-size are one choice: their product is a target's width")

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        return common_divisors([d_in for _, d_in in targets])

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/oft/layer.py, Linear.forward. Where peft rebinds x, the module call keeps the first."""
        refuse_conv1d(m, w, name)
        if self.coft:
            raise NotModelled("estimate does not write --coft: memcalc trace runs it")
        count, block = self._blocks(w.d_in)
        elements = (block * (block - 1) // 2,)
        weight = m.adapter(name, "oft_R.default.weight", (1 if self.block_share else count, *elements))
        rows, columns = (
            m.adapter(name, f"oft_R.default.{part}", elements, "buffer", dtype="int64").data
            for part in ("rows", "cols")
        )
        rotated = self._rotate(cast(x, weight.dtype), weight, rows, columns, count, block)
        result = w.linear(cast(rotated, x.dtype))
        return cast(result, x.dtype)

    def _blocks(self, width: int) -> tuple[int, int]:
        """How many blocks a target of this width has, and their size: what was asked for, or the nearest divisor."""
        if self.r:
            count = _divisor(width, self.r)
            return count, width // count
        block = _divisor(width, self.oft_block_size or _BLOCK)
        return width // block, block

    def _rotate(self, x: Tensor, weight: Tensor, rows: Array, columns: Array, count: int, block: int) -> Tensor:
        """OFTRotationModule.forward."""
        cayley = self._cayley if self.use_cayley_neumann else _cayley_exactly
        rotation = cayley(weight, rows, columns, block)
        pieces = reshape(x, (*x.shape[:-1], count, block))
        if self.block_share:
            rotation = repeat(rotation, count)
        turned = by_block(pieces, rotation)
        rotated = reshape(turned, x.shape)
        return cast(rotated, x.dtype)

    def _cayley(self, vector: Tensor, rows: Array, columns: Array, block: int) -> Tensor:
        """OFTRotationModule._cayley_batch: I + 2 Q + 2 Q^2 + … + Q^n."""
        count = vector.shape[0]
        skew = _skew_symmetric(vector, rows, columns, block)
        terms = self.num_cayley_neumann_terms
        identity = new((block, block), vector.dtype, "eye")
        total = Tensor(new((count, block, block), vector.dtype, "repeat"))
        del identity
        if terms > 1:
            total = added_in_place(total, skew, scaled=True)
        if terms > 2:
            squared = bmm(skew, skew)
            total = added_in_place(total, squared, scaled=True)
            power = squared
            for _ in range(3, terms - 1):
                power = bmm(power, skew)
                total = added_in_place(total, power, scaled=True)
            power = bmm(power, skew)
            total = added_in_place(total, power)
        return total

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "OFT",
            "r": self.r,
            "oft_block_size": self.oft_block_size or (0 if self.r else _BLOCK),
            "target_modules": self.target_modules,
            "bias": self.bias,
            "block_share": self.block_share,
            "use_cayley_neumann": self.use_cayley_neumann,
            "num_cayley_neumann_terms": self.num_cayley_neumann_terms,
            "coft": self.coft,
            "eps": self.eps,
            "module_dropout": self.module_dropout,
        }


def _cayley_exactly(vector: Tensor, rows: Array, columns: Array, block: int) -> Tensor:
    """(I - Q) (I + Q)^-1 in fp32, of Q the skew-symmetric matrices."""
    skew = _skew_symmetric(vector, rows, columns, block)
    return cayley(skew, vector.dtype)


def _skew_symmetric(vector: Tensor, rows: Array, columns: Array, block: int) -> Tensor:
    """(count, elements) -> (count, block, block): the upper triangles, less their transposes."""
    zeros = new((vector.shape[0], block, block), vector.dtype, "zeros")
    matrix = placed(vector, zeros, (rows, columns))
    del zeros
    matrix = sub(matrix, transpose(matrix, 1, 2))
    return matrix


def _divisor(width: int, wanted: int) -> int:
    """The divisor of the width that is nearest to `wanted`, the lower one of two.

    Source: peft 0.21.2, tuners/oft/layer.py, adjust_oft_parameters.
    """
    if wanted >= width:
        return width
    lower = next(size for size in range(wanted, 0, -1) if width % size == 0)
    higher = next(size for size in range(wanted, width + 1) if width % size == 0)
    return lower if wanted - lower <= higher - wanted else higher


METHOD = Oft
