"""GraLoRA: low-rank updates of a weight's blocks, each with factors of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_in_place, target_option
from memcalc.options import LARGEST, option
from memcalc.tape.ops.arranging import permute
from memcalc.tape.ops.einsum import by_block
from memcalc.tape.ops.elementwise import added_in_place, cast, dropout, scale
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import reshape, view

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Gralora(OnLinears):
    """GraLoRA: y = W x + alpha / (rank + hybrid_r) * U x, each of U's k x k blocks a product of rank `rank` / k
    (Jung et al. 2025, arXiv:2505.20355, section 3); `hybrid_r` adds a LoRA of that rank.

    Trainable parameters: (rank + hybrid_r) * (d_in + d_out) per target, whatever k is. Keeps for backward, per target:
    the input by blocks, in the adapters' dtype, and as many numbers as k LoRAs of `rank` would keep behind A.
    """

    rank: int = option(
        32, "--rank", "rank that a row of blocks has in all; a multiple of k", aliases=("--r", "--gralora-r"), size=True
    )
    gralora_k: int = option(2, "--gralora-k", "blocks on a side, which divide d_in and d_out")
    hybrid_r: int = option(0, "--hybrid-r", "rank of a LoRA beside the blocks", least=0)
    alpha: float = option(64.0, "--alpha", "the update is scaled by alpha / (rank + hybrid_r)")
    target: tuple[str, ...] = target_option()
    gralora_dropout: float = option(0.0, "--gralora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "gralora_only"))

    def __post_init__(self) -> None:
        check_dropout("--gralora-dropout", self.gralora_dropout)
        if self.rank % self.gralora_k:
            raise InvalidWorkload(f"--rank {self.rank} is no multiple of --gralora-k {self.gralora_k}")

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        return range(self.gralora_k, LARGEST + 1, self.gralora_k)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/gralora/layer.py, Linear.forward. Its call keeps the first x."""
        k = self.gralora_k
        for width in (w.d_in, w.d_out):
            if width % k:
                raise InvalidWorkload(
                    f"peft refuses this: the width {width} of {name} is no multiple of --gralora-k {k}"
                )
        a = m.adapter(name, "gralora_A.default", (k, w.d_in // k, self.rank))
        b = m.adapter(name, "gralora_B.default", (k, self.rank, w.d_out // k))
        hybrid = self._hybrid(m, w, name) if self.hybrid_r else None
        result = w.linear(x)
        refuse_in_place(m, w, name)
        dtype, shape = result.dtype, result.shape
        rows = x.shape[:-1] if len(x.shape) == 3 else (x.shape[0], 1)
        pieces = view(x, (*rows, w.d_in)) if len(x.shape) == 2 else x
        output = by_block(view(self._dropped(m, pieces, a.dtype), (*rows, k, w.d_in // k)), a)
        # what A makes of one piece of the input is shared out among all pieces
        output = reshape(permute(view(output, (*rows, k, k, self.rank // k)), (0, 1, 3, 2, 4)), (*rows, k, self.rank))
        output = by_block(output, b)
        output = reshape(output, (*rows, w.d_out))
        output = view(output, shape)
        result = added_in_place(result, scale(cast(output, dtype)))
        if hybrid is not None:
            hybrid_output = view(linear(linear(self._dropped(m, pieces, a.dtype), hybrid[0]), hybrid[1]), shape)
            result = added_in_place(result, scale(cast(hybrid_output, dtype)))
        return cast(result, x.dtype)

    def _hybrid(self, m: "Builder", w: "Weight", name: str) -> "tuple[Tensor, Tensor]":
        return (
            m.adapter(name, "gralora_A_general.default.weight", (self.hybrid_r, w.d_in)),
            m.adapter(name, "gralora_B_general.default.weight", (w.d_out, self.hybrid_r)),
        )

    def _dropped(self, m: "Builder", x: "Tensor", dtype: str) -> "Tensor":
        return dropout(cast(x, dtype), self.gralora_dropout if m.training else 0.0)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "GRALORA",
            "r": self.rank,
            "gralora_k": self.gralora_k,
            "hybrid_r": self.hybrid_r,
            "alpha": self.alpha,
            "target_modules": self.target_modules,
            "gralora_dropout": self.gralora_dropout,
            "bias": self.bias,
        }


METHOD = Gralora
