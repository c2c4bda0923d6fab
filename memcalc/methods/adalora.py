"""AdaLoRA: LoRA in the form of a singular value decomposition, whose ranks are allotted while it trains."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import DEFAULT_TARGETS
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_adalora import allocator, regularizer
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, added_in_place, cast, dropout, mul, quotient, scale, shift
from memcalc.tape.ops.linear import matmul
from memcalc.tape.ops.views import clone, transpose
from memcalc.tape.tape import Array, Tensor, tape

if TYPE_CHECKING:
    from collections.abc import Callable

    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output
    from memcalc.tape.weights import Weight

# Where they differ from LoRA's.
# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_ADALORA_TARGET_MODULES_MAPPING
_TARGETS = {"opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")}


@final
@dataclass(frozen=True, slots=True)
class AdaLora(OnLinears):
    """AdaLoRA: y = W x + alpha / rank * B (A * E) x with E a column of singular values
    (Zhang et al. 2023, arXiv:2303.10512, section 3).

    Trainable parameters: init_r * (d_in + d_out + 1) per target; memory follows init_r, not target_r. Keeps for
    backward: as LoRA, and of the loss that keeps A and B orthogonal two matrices init_r x init_r per target. Keeps
    between steps, for the allocation of ranks, three numbers for each trained one: the loop is one that asks for it
    after each step of the optimizer, as peft's documentation has it; Trainer does so by a callback.
    """

    init_r: int = option(12, "--init-r", "rank of the update at first", aliases=("--rank",), size=True)
    target_r: int = option(8, "--target-r", "average rank of the update at last")
    alpha: float = option(8.0, "--alpha", "the update is scaled by alpha / rank", aliases=("--lora-alpha",))
    target: tuple[str, ...] = target_option()
    lora_dropout: float = option(0.0, "--lora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "lora_only"))
    total_step: int = option(1000, "--total-step", "training steps in all, of which peft wants to be told")
    tinit: int = option(0, "--tinit", "first steps, without an allocation", least=0)
    tfinal: int = option(0, "--tfinal", "last steps, without an allocation", least=0)
    delta_t: int = option(1, "--delta-t", "steps from one allocation to the next", aliases=("--deltaT",))
    beta1: float = option(0.85, "--beta1", "decay of the averaged importance")
    beta2: float = option(0.85, "--beta2", "decay of its averaged uncertainty")
    orth_reg_weight: float = option(0.5, "--orth-reg-weight", "weight of the loss that keeps A and B orthogonal")

    def __post_init__(self) -> None:
        check_dropout("--lora-dropout", self.lora_dropout)
        for flag, beta in (("--beta1", self.beta1), ("--beta2", self.beta2)):
            if not 0 < beta < 1:
                raise InvalidWorkload(f"{flag} must be above 0 and below 1, not {beta}")
        if self.tinit >= self.total_step - self.tfinal:
            raise InvalidWorkload(
                f"--tinit {self.tinit} and --tfinal {self.tfinal} leave no step between them of --total-step "
                f"{self.total_step}"
            )

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _TARGETS.get(model_type) or DEFAULT_TARGETS.get(model_type, ())

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        a = m.adapter(name, "lora_A.default", (self.init_r, w.d_in))
        b = m.adapter(name, "lora_B.default", (w.d_out, self.init_r))
        e = m.adapter(name, "lora_E.default", (self.init_r, 1))
        ranknum = m.adapter(name, "ranknum.default", (1,), frozen=True)
        forward = self._over_packed if w.packed else self._over_plain
        return forward(m, x, w, (a, b, e, ranknum))

    def _over_plain(self, m: "Builder", x: Tensor, w: "Weight", adapters: tuple[Tensor, ...]) -> Tensor:
        """peft 0.21.2, tuners/adalora/layer.py, SVDLinear.forward. Where peft rebinds x, its call keeps the first."""
        a, b, e, rank = adapters
        result = w.linear(x)
        ranknum = shift(rank)
        x_cast = cast(x, a.dtype)
        update = quotient(scale(self._update(m, x_cast, a, b, e)), ranknum)
        return added_in_place(result, update)

    def _over_packed(self, m: "Builder", x: Tensor, w: "Weight", adapters: tuple[Tensor, ...]) -> Tensor:
        """peft 0.21.2, tuners/adalora/bnb.py, SVDLinear4bit.forward, SVDLinear8bitLt.forward."""
        a, b, e, rank = adapters
        result = w.linear(x)
        if w.packed == 4:
            result = clone(result)
        ranknum = shift(rank)
        by_hand = tape.autocast is None
        x_cast = cast(x, a.dtype) if by_hand else x
        output = self._update(m, x_cast, a, b, e)
        if by_hand:
            output = cast(output, result.dtype)
        output = quotient(scale(output), ranknum)
        return added_in_place(result, output) if w.packed == 4 else add(result, output)

    def _update(self, m: "Builder", x: Tensor, a: Tensor, b: Tensor, e: Tensor) -> Tensor:
        rate = self.lora_dropout if m.training else 0.0
        return matmul(matmul(dropout(x, rate), transpose(mul(a, e), 0, 1)), transpose(b, 0, 1))

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        """AdaLoraModel.forward: the loss grows by how far A and B are from orthogonal."""
        output = model(batch)
        return output if output.loss is None else regularizer.regularized(m, output, output.loss)

    def stepped(
        self, m: "Builder", kept: dict[str, dict[str, Array]], step: int, times: "Callable[[str], int]"
    ) -> None:
        """The allocation of ranks. It fails where there are none to take away, so that no loop asks for it there."""
        if self.target_r < self.init_r:
            schedule = allocator.Schedule(self.total_step, self.tinit, self.tfinal, self.delta_t)
            allocator.update_and_allocate(m, kept, schedule, step, times)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The current rank is not saved. Where some is masked, peft saves less than this."""
        return 0 if name.endswith("ranknum.default") else nbytes

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "ADALORA",
            "init_r": self.init_r,
            "target_r": self.target_r,
            "lora_alpha": self.alpha,
            "target_modules": self.target_modules,
            "lora_dropout": self.lora_dropout,
            "bias": self.bias,
            "total_step": self.total_step,
            "tinit": self.tinit,
            "tfinal": self.tfinal,
            "deltaT": self.delta_t,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "orth_reg_weight": self.orth_reg_weight,
        }


METHOD = AdaLora
