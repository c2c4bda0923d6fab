"""VB-LoRA: low-rank matrices mixed from a bank of vectors that all layers share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import DEFAULT_TARGETS
from memcalc.errors import InvalidWorkload
from memcalc.formats import ITEMSIZE
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, mul
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.loss import softmax
from memcalc.tape.ops.placing import largest
from memcalc.tape.ops.reductions import total
from memcalc.tape.ops.views import indexed, reshape, transpose, view
from memcalc.tape.tape import Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

# Where they differ from LoRA's.
# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_VBLORA_TARGET_MODULES_MAPPING
_TARGETS = {"opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")}


@final
@dataclass(frozen=True, slots=True)
class VBLora(OnLinears):
    """VB-LoRA: y = W x + B A x, whose pieces of `vector_length` are each a mixture of `topk` vectors of a bank, which
    all targets share (Li et al. 2024, arXiv:2405.15179, section 3).

    Trainable parameters: num_vectors * vector_length, and per target rank * num_vectors for each piece of d_in and
    d_out. Keeps for backward: as LoRA, and of each mixture its vectors, their weights and their places.
    """

    rank: int = option(4, "--rank", "rank of the update", aliases=("--r", "--vblora-r"), size=True)
    num_vectors: int = option(256, "--num-vectors", "vectors in the bank")
    vector_length: int = option(256, "--vector-length", "length of a vector; d_in and d_out are multiples of it")
    topk: int = option(2, "--topk", "vectors in a mixture")
    target: tuple[str, ...] = target_option()
    vblora_dropout: float = option(0.0, "--vblora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "vblora_only"))
    save_only_topk_weights: bool = option(
        False,
        "--save-only-topk-weights/--no-save-only-topk-weights",
        "the checkpoint holds mixtures, not what they are chosen by",
    )
    init_vector_bank_bound: float = option(0.02, "--init-vector-bank-bound", "largest number of the bank at first")
    init_logits_std: float = option(0.1, "--init-logits-std", "deviation of what mixtures are chosen by at first")

    def __post_init__(self) -> None:
        check_dropout("--vblora-dropout", self.vblora_dropout)
        if self.topk > self.num_vectors:
            raise InvalidWorkload(f"--topk {self.topk} is more than the bank has: --num-vectors {self.num_vectors}")

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _TARGETS.get(model_type) or DEFAULT_TARGETS.get(model_type, ())

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/vblora/layer.py, Linear.forward. Its call keeps the first x."""
        for width in (w.d_in, w.d_out):
            if width % self.vector_length:
                raise InvalidWorkload(
                    f"peft refuses this: the width {width} of {name} is no multiple of --vector-length "
                    f"{self.vector_length}"
                )
        count, length = self.num_vectors, self.vector_length
        logits_a = m.adapter(name, "vblora_logits_A.default", (self.rank, w.d_in // length, count))
        logits_b = m.adapter(name, "vblora_logits_B.default", (w.d_out // length, self.rank, count))
        bank = m.shared(name, "vblora_vector_bank.default", (count, length), remade=True)
        result = w.linear(x)
        a, b = self._matrices(m, logits_a, logits_b, bank)
        x_cast = cast(x, bank.dtype)
        rate = self.vblora_dropout if m.training else 0.0
        result = add(result, linear(linear(dropout(x_cast, rate), a), b))
        return cast(result, x.dtype)

    def _matrices(self, m: "Builder", logits_a: Tensor, logits_b: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        """VBLoRALayer._get_lora_matrices; training looks for infinities in one row first."""
        if m.training:
            infinite = new((self.num_vectors,), "bool", "isinf")
            some = new((), "bool", "any")
            del infinite, some
        a = self._mixed(logits_a, bank)
        a = reshape(a, (self.rank, a.shape[1] * self.vector_length))
        b = transpose(self._mixed(logits_b, bank), 1, 2)
        b = reshape(b, (b.shape[0] * self.vector_length, self.rank))
        return a, b

    def _mixed(self, logits: Tensor, bank: Tensor) -> Tensor:
        """VBLoRALayer._get_low_rank_matrix: (n, m, num_vectors) -> (n, m, vector_length)."""
        chosen, places = largest(logits, self.topk)
        weights = softmax(chosen)
        return total(mul(view(weights, (*weights.shape, 1)), indexed(bank, places, 0)), 2)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """Of mixtures alone: the places in the smallest integers that hold them, all weights but the last.

        Source: peft 0.21.2, tuners/vblora/model.py, _get_adapter_state_dict.
        """
        if not self.save_only_topk_weights or "vblora_logits" not in name:
            return nbytes
        logits = m.parameters[name]
        mixtures = nbytes // ITEMSIZE[logits.dtype] // self.num_vectors
        place = next(size for size, bits in ((1, 8), (2, 15), (4, 31), (8, 63)) if self.num_vectors < 2**bits)
        return mixtures * (self.topk * place + (self.topk - 1) * ITEMSIZE[logits.dtype])

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "VBLORA",
            "r": self.rank,
            "num_vectors": self.num_vectors,
            "vector_length": self.vector_length,
            "topk": self.topk,
            "target_modules": self.target_modules,
            "vblora_dropout": self.vblora_dropout,
            "bias": self.bias,
            "save_only_topk_weights": self.save_only_topk_weights,
            "init_vector_bank_bound": self.init_vector_bank_bound,
            "init_logits_std": self.init_logits_std,
        }


METHOD = VBLora
