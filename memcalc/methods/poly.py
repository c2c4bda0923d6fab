"""Poly: each task mixes its own LoRA out of skills that all tasks share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.einsum import contracted
from memcalc.tape.ops.elementwise import (
    add,
    added_in_place,
    cast,
    divide,
    log,
    log1p,
    neg,
    quotient,
    shift,
    sigmoid,
    sub,
    within,
)
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.reductions import total
from memcalc.tape.ops.views import indexed, reshape, transpose, view
from memcalc.tape.tape import Tensor, like, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output
    from memcalc.tape.weights import Weight

_TASKS = "task_ids"


@final
@dataclass(frozen=True, slots=True)
class Poly(OnLinears):
    """Poly: y = W x + B A x / rank, A and B mixed out of n_skills for each row's task (Ponti et al. 2022,
    arXiv:2202.13914, section 3); by n_splits parts of input and output each its own (Caccia et al. 2022,
    arXiv:2211.03831, section 3.1).

    Trainable parameters: n_skills * rank * (d_in + d_out) + n_tasks * n_splits * n_skills per target. Keeps for
    backward, per target: its input in the adapters' dtype, A x, each row's own A and B, and of the mixture, which is
    drawn in training (RelaxedBernoulli), a dozen blocks of b * n_splits * n_skills.
    """

    kind: ClassVar[Kind] = "adapter"
    merges: ClassVar[bool] = False
    not_checkpointed: ClassVar[str] = (
        "peft tells each layer the tasks for one forward alone, and layers that are run again ask for them in vain"
    )
    rank: int = option(8, "--rank", "rank of a skill", aliases=("--r",), size=True)
    target: tuple[str, ...] = target_option()
    n_tasks: int = option(1, "--n-tasks", "tasks that share the skills")
    n_skills: int = option(4, "--n-skills", "skills that a task mixes")
    n_splits: int = option(1, "--n-splits", "parts of input and output that are mixed each by itself")

    @property
    def takes_checkpointing(self) -> bool:
        return False

    @property
    def wants_tasks(self) -> bool:
        return True

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        """PolyModel.forward: the layers are told the tasks until it returns."""
        assert batch.tasks is not None, "a batch says which tasks its rows belong to"
        m.noted[_TASKS] = Tensor(batch.tasks)
        output = model(batch)
        del m.noted[_TASKS]
        return output

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/poly/layer.py, Linear.forward. Its call keeps the first x, which the caller holds."""
        refuse_conv1d(m, w, name)
        if len(x.shape) != 3:
            raise InvalidWorkload(f"peft fails here: {name} is given one matrix for all rows, and Poly mixes by row")
        if w.packed == 8 and m.training and not m.declaring:
            raise InvalidWorkload(
                f"--quant int8 cannot go with --method poly: it adds to the output of {name} in place, which autograd "
                "does not let it do to bitsandbytes' own function"
            )
        splits, skills, rank = self.n_splits, self.n_skills, self.rank
        if w.d_in % splits or w.d_out % splits:
            raise InvalidWorkload(f"--n-splits {splits} does not divide {name}, which is {w.d_in} by {w.d_out}")
        logits = m.adapter(name, "poly_router.default.module_logits", (self.n_tasks, splits * skills))
        down = m.adapter(name, "poly_lora_A.default", (splits, skills, w.d_in // splits, rank))
        up = m.adapter(name, "poly_lora_B.default", (splits, skills, rank, w.d_out // splits))
        result = w.linear(x)
        mixing_weights = m.call(f"{name.removeprefix(f'{m.path}.')}.poly_router.default", self._routed, logits)
        b = mixing_weights.shape[0]
        a = contracted(mixing_weights, down, "bqs,qsdr->bqdr")
        b_ = contracted(mixing_weights, up, "bqs,qsrd->bqrd")
        a = reshape(a, (b, w.d_in, rank))
        b_ = reshape(transpose(b_, 1, 2), (b, rank, w.d_out))
        x_cast = cast(x, a.dtype)
        result = added_in_place(result, divide(bmm(bmm(x_cast, a), b_)))
        return cast(result, x.dtype)

    def _routed(self, m: "Builder", logits: Tensor) -> Tensor:
        """tuners/poly/router.py, PolyRouter.forward: weights (b, splits, skills)."""
        tasks = m.noted[_TASKS].data
        highest = new((), tasks.dtype, "max")
        del highest
        rows = indexed(logits, tasks, 0)
        odds = view(rows, (rows.shape[0], self.n_splits, self.n_skills))
        del rows
        odds = _drawn(odds) if m.training else sigmoid(odds)
        summed = shift(view(total(odds, 2), (*odds.shape[:2], 1)))
        return quotient(odds, summed)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """update_layer: the router last."""
        yield "poly_lora_A.default"
        yield "poly_lora_B.default"
        yield ""

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "POLY",
            "r": self.rank,
            "target_modules": self.target_modules,
            "n_tasks": self.n_tasks,
            "n_skills": self.n_skills,
            "n_splits": self.n_splits,
        }


def _drawn(logits: Tensor) -> Tensor:
    """RelaxedBernoulli(1.0, logits=logits).rsample().

    Source: PyTorch 2.13, torch/distributions/relaxed_bernoulli.py, LogitRelaxedBernoulli.rsample; transforms.py,
    SigmoidTransform.
    """
    probs = sigmoid(logits)
    clamped = within(probs)
    noise = _uniform(probs)
    drawn = divide(sub(add(sub(log(noise), log1p(neg(noise))), log(clamped)), log1p(neg(clamped))))
    del noise, clamped
    return within(sigmoid(drawn))


def _uniform(x: Tensor) -> Tensor:
    """clamp_probs of torch.rand."""
    return within(Tensor(like(x.data, "rand")))


METHOD = Poly
