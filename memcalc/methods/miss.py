"""MiSS: a frozen weight plus a small matrix that shards of the input share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import add, cast, dropout
from memcalc.tape.ops.linear import matmul
from memcalc.tape.ops.reductions import total
from memcalc.tape.ops.views import clone, pad_last, reshape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Miss(OnLinears):
    """MiSS: y = W x + D^T S(x), S summing x over d_in / rank shards (Kang & Yin 2024, arXiv:2409.15371, section 3).

    Trainable parameters: rank * d_out per target; rank * mini_r under `mini`.
    Keeps for backward: the summed input, rank wide, of each target, and what `mini` repeats.
    """

    rank: int = option(64, "--rank", "width of the summed input, 1 to d_in", aliases=("--r", "--miss-r"), size=True)
    target: tuple[str, ...] = target_option()
    miss_dropout: float = option(0.0, "--miss-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    init_weights: str = option(
        "balance", "--init-weights", "the variant, which goes by its initialization", choices=("balance", "bat", "mini")
    )
    mini_r: int = option(1, "--mini-r", "columns that --init-weights mini trains; d_out is a multiple of it")
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "MiSS_only"))

    def __post_init__(self) -> None:
        check_dropout("--miss-dropout", self.miss_dropout)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/miss/layer.py, MissLinear.forward. Its call keeps the first x."""
        refuse_conv1d(m, w, name)
        self._check(w, name)
        mini = self.init_weights == "mini"
        own = m.adapter(name, "miss_block.default", (self.rank, self.mini_r if mini else w.d_out))
        result = w.linear(x)
        dtype = x.dtype
        if w.packed == 4:
            result = clone(result)
        block = repeat(own, w.d_out // self.mini_r, 1) if mini else own
        padded = x if w.d_in % self.rank == 0 else pad_last(x, w.d_in + self.rank - w.d_in % self.rank)
        padded = cast(padded, block.dtype)
        result = add(result, matmul(total(self._shards(m, padded), len(x.shape) - 1), block))
        return cast(result, dtype)

    def _shards(self, m: "Builder", x: "Tensor") -> "Tensor":
        dropped = dropout(x, self.miss_dropout if m.training else 0.0)
        return reshape(dropped, (*x.shape[:-1], x.shape[-1] // self.rank, self.rank))

    def _check(self, w: "Weight", name: str) -> None:
        """What peft refuses when it makes the adapter (MissLayer.update_layer)."""
        if self.rank > w.d_in:
            raise InvalidWorkload(f"peft refuses this: --rank {self.rank} is above the width {w.d_in} of {name}")
        if self.init_weights == "mini" and w.d_out % self.mini_r:
            raise InvalidWorkload(
                f"peft refuses this: the {w.d_out} outputs of {name} are no multiple of --mini-r {self.mini_r}"
            )
        if self.init_weights == "bat":
            raise NotModelled("estimate does not write --init-weights bat: memcalc trace runs it")

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "MISS",
            "r": self.rank,
            "target_modules": self.target_modules,
            "miss_dropout": self.miss_dropout,
            "init_weights": True if self.init_weights == "balance" else self.init_weights,
            "mini_r": self.mini_r,
            "bias": self.bias,
        }


METHOD = Miss
