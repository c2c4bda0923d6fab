"""BOFT: a frozen weight behind rotations in blocks, and a scale behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.linears import OnLinears, common_divisors, refuse_conv1d, refuse_eight_bits, target_option
from memcalc.options import option
from memcalc.tape.cayley import cayley
from memcalc.tape.ops.arranging import permute
from memcalc.tape.ops.elementwise import add, cast, mul, scale, sub
from memcalc.tape.ops.linear import bmm, matmul, mm
from memcalc.tape.ops.solving import block_diagonal
from memcalc.tape.ops.views import select, transpose, view
from memcalc.tape.tape import Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Boft(OnLinears):
    """BOFT: y = s W R x with R a product of block-diagonal rotations between butterfly permutations
    (Liu et al. 2023, arXiv:2311.06243, section 4), of which peft makes one where its CUDA extension is not built.

    Trainable parameters: d_in * block + d_out per target. Keeps for backward: several matrices d_in x d_in per target,
    beside a permutation of that size, which is stored; the input, the rotated input, the output before its scale.
    """

    boft_block_size: int = option(
        0, "--boft-block-size", "size of a block; default: 4 unless a count is given", least=0, size=True
    )
    boft_block_num: int = option(0, "--boft-block-num", "number of blocks in place of their size", least=0)
    boft_n_butterfly_factor: int = option(
        1, "--boft-n-butterfly-factor", "rotations; without peft's CUDA extension one is made, whatever stands here"
    )
    target: tuple[str, ...] = target_option()
    boft_dropout: float = option(0.0, "--boft-dropout", "of whole blocks")
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "boft_only"))

    def __post_init__(self) -> None:
        if self.boft_block_size and self.boft_block_num:
            raise InvalidWorkload(
                "--boft-block-size and --boft-block-num are one choice: their product is a target's width"
            )

    @property
    def _size(self) -> int:
        """Of a block, by peft's default; 0 where their count is given."""
        return self.boft_block_size or (0 if self.boft_block_num else 4)

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        return common_divisors([d_in for _, d_in in targets])

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/boft/layer.py, Linear.forward."""
        refuse_conv1d(m, w, name)
        refuse_eight_bits(w, name)
        if self.boft_dropout:
            raise NotModelled("estimate does not write --boft-dropout: memcalc trace runs it")
        wanted = self._size or self.boft_block_num
        if w.d_in % wanted:
            raise InvalidWorkload(f"peft refuses this: the width {w.d_in} of {name} is no multiple of {wanted}")
        block = self._size or w.d_in // self.boft_block_num
        blocks = m.adapter(name, "boft_R.default", (1, w.d_in // block, block, block))
        gains = m.adapter(name, "boft_s.default", (w.d_out, 1))
        permutation = m.adapter(name, "boft_P", (1, w.d_in, w.d_in), "buffer", late=True)
        rotation = Tensor(new((w.d_in, w.d_in), x.dtype, "eye"))
        scaling = Tensor(new((w.d_out, 1), x.dtype, "ones"))
        rotations = _cayley(view(blocks, blocks.shape[1:]))
        diagonal = view(block_diagonal(rotations), (1, w.d_in, w.d_in))
        permutation = cast(permutation, x.dtype)
        diagonal = cast(diagonal, x.dtype)
        batch = bmm(diagonal, permute(permutation, (0, 2, 1)))
        batch = bmm(permutation, batch)
        turned = select(batch, 0)
        rotation = mm(turned, rotation)
        scaling = mul(gains, scaling)
        rotation = cast(rotation, x.dtype)
        rotated = matmul(x, rotation)
        result = w.linear(rotated)
        if w.bias is not None:
            result = sub(result, w.bias)
        result = mul(result, view(scaling, (w.d_out,)))
        if w.bias is not None:
            result = add(result, w.bias)
        return cast(result, x.dtype)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "BOFT",
            "boft_block_size": self._size,
            "boft_block_num": self.boft_block_num,
            "boft_n_butterfly_factor": self.boft_n_butterfly_factor,
            "target_modules": self.target_modules,
            "boft_dropout": self.boft_dropout,
            "bias": self.bias,
        }


def _cayley(data: Tensor) -> Tensor:
    """BOFTLayer.cayley_batch: in fp32."""
    skew = scale(sub(data, transpose(data, 1, 2)))
    return cayley(skew, data.dtype)


METHOD = Boft
