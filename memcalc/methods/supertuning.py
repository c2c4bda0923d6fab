"""Super-Tuning: the largest entries of a frozen weight train, beside LoRA if asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Target
from memcalc.errors import InvalidWorkload
from memcalc.formats import HALF
from memcalc.kernels import check_dtypes
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import LARGEST, option
from memcalc.tape.ops.choosing import scatter_add
from memcalc.tape.ops.elementwise import add, cast, dropout, scale
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.views import view
from memcalc.tape.tape import Tensor, like, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_PLACES, _VALUES = "supertuning_indices.default", "supertuning_values.default"
_FACTORS = ("supertuning_lora_A.default.weight", "supertuning_lora_B.default.weight")


@final
@dataclass(frozen=True, slots=True)
class Supertuning(OnLinears):
    """Super-Tuning: y = (W + S) x, S zero but where W's entries are largest, those trained; with a rank, as Supra,
    + lora_alpha / rank * B A x besides (arXiv:2607.09287).

    Trainable parameters per target: int(d_in * d_out * (1 - sparsity)), and rank * (d_in + d_out). Keeps for backward,
    per target: W + S, in W's dtype, its input, and the places as int64; what LoRA keeps, in fp32. Backward makes a
    gradient of all of W.
    """

    sparsity: float = option(0.99, "--sparsity", "share of a weight's entries that do not train")
    select_top: bool = option(
        True, "--select-top/--no-select-top", "the largest entries train; else the smallest, by magnitude"
    )
    rank: int = option(0, "--rank", "rank of LoRA beside them; 0: none", aliases=("--r",), least=0, size=True)
    target: tuple[str, ...] = target_option()
    lora_alpha: float = option(0.0, "--lora-alpha", "scale of LoRA's update; 0: twice the rank", aliases=("--alpha",))
    lora_dropout: float = option(0.0, "--lora-dropout", "dropout of LoRA's input", aliases=("--dropout",))
    save_precomputed_indices: bool = option(
        True, "--save-precomputed-indices/--no-save-precomputed-indices", "the checkpoint holds the places too"
    )

    def __post_init__(self) -> None:
        check_dropout("--sparsity", self.sparsity)
        check_dropout("--lora-dropout", self.lora_dropout)
        if self.lora_alpha and not self.rank:
            raise InvalidWorkload("--lora-alpha needs a --rank: without one there is no LoRA")

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        return range(LARGEST + 1)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/supertuning/layer.py, Linear.forward."""
        if w.turned:
            raise InvalidWorkload(f"peft refuses this: {name} is a Conv1D, and this method adapts torch.nn.Linear only")
        count = self._count(w.d_out * w.d_in)
        if not count:
            raise InvalidWorkload(f"peft refuses this: --sparsity {self.sparsity} leaves no entry of {name} to train")
        weight = w.dense()
        if tape.autocast is None:
            check_dtypes(f"the linear layer {name}", x.dtype, weight.dtype)
        trained = m.adapter(name, _VALUES, (count,))
        places = m.adapter(name, _PLACES, (count,), "buffer", dtype="int32")
        flat = view(weight, (w.d_out * w.d_in,))
        indices = like(places.data, "to", "int64")
        values = cast(trained, weight.dtype)
        summed = scatter_add(flat, indices, values)
        result = linear(x, view(summed, weight.shape), w.bias)
        if self.rank:
            a = m.adapter(name, _FACTORS[0], (self.rank, w.d_in), "linear")
            b = m.adapter(name, _FACTORS[1], (w.d_out, self.rank), "linear")
            x_dropped = cast(dropout(x, self.lora_dropout if m.training else 0.0), a.dtype)
            lora_out = linear(linear(x_dropped, a), b)
            result = add(result, cast(scale(lora_out), result.dtype))
        return result

    def _count(self, entries: int) -> int:
        """_num_trainable."""
        return int(entries * (1 - self.sparsity))

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """update_layer: magnitudes and their order live until it returns, as do values in fp32, in which all begins;
        over a half base everything is cast once it is there.
        """
        if module in m.weights:
            raise InvalidWorkload(
                f"--quant cannot go with --method supertuning: peft multiplies by the codes of the packed {module}"
            )
        base = m.parameters[f"{module}.weight"]
        d_out, d_in = base.shape
        count = self._count(d_out * d_in)
        magnitudes = like(base.data, "abs", category="adapter")
        largest = new((count,), base.dtype, "topk", "adapter"), new((count,), "int64", "topk", "adapter")
        yield _PLACES
        kept = largest[0]
        del largest
        if base.dtype not in HALF:
            yield from (_VALUES, "")
            return
        values = new((count,), "fp32", "zeros", "adapter")
        factors = [new(shape, "fp32", "empty", "adapter") for shape in self._shapes(d_out, d_in)]
        yield _VALUES
        for part in _FACTORS[: len(factors)]:
            yield part
            del factors[0]
        del magnitudes, kept, values

    def _shapes(self, d_out: int, d_in: int) -> tuple[tuple[int, int], ...]:
        return ((self.rank, d_in), (d_out, self.rank)) if self.rank else ()

    def merge(self, m: "Builder", module: str) -> None:
        """peft 0.21.2, tuners/supertuning/layer.py, Linear.merge, _lora_delta."""
        weight, places, trained = (m.parameters[f"{module}.{part}"] for part in ("weight", _PLACES, _VALUES))
        indices = like(places.data, "to", "int64")
        values = cast(trained, weight.dtype)
        if self.rank:
            a, b = (m.parameters[f"{module}.{part}"] for part in _FACTORS)
            delta = cast(scale(mm(b, a)), weight.dtype)
            del delta
        del indices, values

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        return nbytes if self.save_precomputed_indices or not buffer else 0

    def rewritten(self, target: Target) -> int:
        return target.weight if self.rank else target.added

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "SUPERTUNING",
            "sparsity": self.sparsity,
            "select_top": self.select_top,
            "r": self.rank or None,
            "target_modules": self.target_modules,
            "lora_alpha": self.lora_alpha or None,
            "lora_dropout": self.lora_dropout,
            "save_precomputed_indices": self.save_precomputed_indices,
        }


METHOD = Supertuning
