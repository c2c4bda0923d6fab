"""What the methods that adapt linear layers by name have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar

from memcalc.anatomy import ALL_LINEAR, DEFAULT_TARGETS, Anatomy, Target, match_targets, names_a_layer
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.base import Kind, Method
from memcalc.options import option

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


class OnLinears(Method, ABC):
    """A method that adapts linear layers by name: those of its option `target`, by default LoRA's."""

    __slots__ = ()
    kind: ClassVar[Kind] = "reparameterised"
    merges: ClassVar[bool] = True
    target: tuple[str, ...]
    bias: str = "none"  # which of the base model's biases train

    @property
    def layers_alike(self) -> bool:
        return not names_a_layer(self.target)

    def rewritten(self, target: Target) -> int:
        return target.weight if self.merges else target.added

    def targets(self, model: Anatomy) -> frozenset[str]:
        return match_targets(self.target or self.default_targets(model.model_type), model)

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        """Biases: none, all, or those of the targets (peft's "lora_only" and the like).

        Source: peft 0.21.2, tuners/tuners_utils.py, _mark_only_adapters_as_trainable.
        """
        if self.bias == "none":
            return frozenset()
        biases = {name: name.removesuffix(".bias") for name in model.parameters if name.endswith(".bias")}
        return frozenset(name for name, module in biases.items() if self.bias == "all" or module in targets)

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        return self.adapted(m, x, w, name) if name in m.targets else w.linear(x)

    @abstractmethod
    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """The output of the target `name` for x (b, s, d_in)."""

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return DEFAULT_TARGETS.get(model_type, ())

    @property
    def target_modules(self) -> str | list[str] | None:
        """As peft's config has them."""
        return ALL_LINEAR if ALL_LINEAR in self.target else list(self.target) or None


def refuse_conv1d(m: "Builder", w: "Weight", name: str) -> None:
    """Raise InvalidWorkload where a target is transformers' Conv1D, which most of peft's methods do not take.

    A packed one is bitsandbytes' linear layer; which ones are is known from loading on.
    """
    if w.turned and not m.declaring:
        raise InvalidWorkload(f"peft refuses this: {name} is a Conv1D, and this method adapts torch.nn.Linear only")


def refuse_packed(w: "Weight", name: str) -> None:
    """Raise InvalidWorkload where an update of the weight's stored shape cannot be added to a packed one's output."""
    if w.packed == 4:
        raise InvalidWorkload(
            "--quant cannot go with this --method: peft shapes its update by the stored weight, and the packed one of "
            f"{name} has another shape"
        )


def refuse_eight_bits(w: "Weight", name: str) -> None:
    """Raise NotModelled where what peft makes beside a weight of whole numbers is not written."""
    if w.packed == 8:
        raise NotModelled(f"estimate does not write this --method over the 8-bit {name}: memcalc trace runs it")


def refuse_in_place(m: "Builder", w: "Weight", name: str) -> None:
    """Raise InvalidWorkload where peft adds what trains to what bitsandbytes' 8-bit layer returns, a view, in place."""
    if w.packed == 8 and m.training:
        raise InvalidWorkload(
            f"--quant int8 cannot go with this --method: PyTorch refuses its sum in place over the output of {name}"
        )


def target_option() -> Any:
    """The option `target` of a method that adapts linear layers."""
    return option(
        (),
        "--target",
        "adapted linear layers, by name or suffix, or all-linear; default: peft's for the model",
        aliases=("--target-modules", "--targets"),
    )


def common_divisors(widths: Sequence[int]) -> list[int]:
    """The sizes above 1 of blocks that divide all the widths, upwards."""
    common = gcd(*widths)
    return [size for size in range(2, common + 1) if common % size == 0]
