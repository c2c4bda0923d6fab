"""Diff pruning: a sparse difference from the pretrained weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import ALL_LINEAR, Target
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind
from memcalc.methods.linears import OnLinears
from memcalc.options import option
from memcalc.tape import declared
from memcalc.tape.ops.elementwise import add, cast, hardtanh, mul, scale, shift, sigmoid
from memcalc.tape.ops.reductions import total_of_all
from memcalc.tape.tape import Tensor, like, tape
from memcalc.tape.weights import Plain

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output
    from memcalc.tape.weights import Weight

_LOG_ALPHA, _GROUP = ".log_alpha", ".group_log_alpha"


@final
@dataclass(frozen=True, slots=True)
class DiffPruning(OnLinears):
    """Diff pruning: W + z * delta with W frozen, z a mask in [0, 1] that a penalty of its own drives to zero
    (Guo et al. 2020, arXiv:2012.07463, section 3; structured: z is also times a mask of the matrix).

    Trainable parameters: twice those of each target, for each of its weights a delta and its mask's log alpha; one more
    for each matrix and bias where it is structured. What is sparse is only the difference that is stored in the end:
    training holds both, with gradients and optimizer states, beside W, and so needs more than full fine-tuning. Keeps
    for backward: of each target's every parameter the mask on three of its ways and the changed weight, beside each
    target's input; and in the penalty the masks' probabilities.
    """

    kind: ClassVar[Kind] = "selective"
    merges: ClassVar[bool] = False
    target: tuple[str, ...] = option(
        (),
        "--target",
        "linear layers that differ, by name or suffix; default: all but the head",
        aliases=("--target-modules", "--targets"),
    )
    structured: bool = option(
        False, "--structured/--no-structured", "a mask for each weight matrix and bias as a whole besides"
    )

    @property
    def holds_forward(self) -> bool:
        """The masks' penalty is added to the loss there."""
        return True

    def rewritten(self, target: Target) -> int:
        return target.weight + target.bias

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return (ALL_LINEAR,)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """Changed.forward of realize/modules/diff.py."""
        refuse_packed(name, packed=bool(w.packed))
        assert isinstance(w, Plain)
        weight = self._changed(m, name, "weight", w.weight)
        bias = None if w.bias is None else self._changed(m, name, "bias", w.bias)
        out = type(w)(weight, bias).linear(x)
        return out

    def _changed(self, m: "Builder", name: str, part: str, own: Tensor) -> Tensor:
        kind: declared.Kind | None = "bias" if part == "bias" else None
        delta = m.adapter(name, f"diffs.{part}.delta", own.shape, kind)
        log_alpha = m.adapter(name, f"diffs.{part}{_LOG_ALPHA}", own.shape, kind)
        group = m.adapter(name, f"diffs.{part}{_GROUP}", (1,), kind) if self.structured else None
        return add(own, cast(mul(_mask(m, log_alpha, group), delta), own.dtype))

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        """The forward that `put` gives the model: the penalty joins the loss."""
        output = model(batch)
        if output.loss is None:
            return output
        outer, tape.category = tape.category, "logits_loss"
        loss = add(output.loss, scale(_penalty(m)))
        tape.category = outer
        return replace(output, loss=loss)

    def graft(self) -> dict[str, Any]:
        return {"module": "diff", "grouped": self.structured}


def refuse_packed(name: str, *, packed: bool) -> None:
    """Raise InvalidWorkload where a target's weight is packed."""
    if packed:
        raise InvalidWorkload(
            f"--method diff_pruning adds to the weights themselves: it cannot go with --quant, which packs {name}'s"
        )


def _mask(m: "Builder", log_alpha: Tensor, group: Tensor | None) -> Tensor:
    """Diff.mask."""
    mask = _drawn(m, log_alpha)
    return mask if group is None else mul(mask, _drawn(m, group))


def _drawn(m: "Builder", log_alpha: Tensor) -> Tensor:
    logits = log_alpha
    if m.training:
        logits = add(logits, Tensor(like(logits.data, "rand_like")))
    return hardtanh(shift(scale(sigmoid(logits))))


def _penalty(m: "Builder") -> Tensor:
    """How many of the masks' elements are expected to be above zero."""
    total = None
    for name, log_alpha in m.parameters.items():
        if name.endswith(_LOG_ALPHA):
            tape.scope = name.rpartition(".")[0]
            expected = _expected(log_alpha, m.parameters.get(name.removesuffix(_LOG_ALPHA) + _GROUP))
            total = expected if total is None else add(total, expected)
            del expected
    tape.scope = ""
    assert total is not None, "something is always adapted"
    return total


def _expected(log_alpha: Tensor, group: Tensor | None) -> Tensor:
    """Diff.expected."""
    each = _above_zero(log_alpha)
    return each if group is None else mul(each, _above_zero(group))


def _above_zero(log_alpha: Tensor) -> Tensor:
    return total_of_all(sigmoid(shift(log_alpha)))


METHOD = DiffPruning
