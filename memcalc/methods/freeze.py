"""Partial fine-tuning: the lower layers are frozen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from memcalc.anatomy import Anatomy, goes_by
from memcalc.errors import InvalidWorkload, shown
from memcalc.methods.base import Method
from memcalc.options import option


@final
@dataclass(frozen=True, slots=True)
class Freeze(Method):
    """Freezing: the top layers train, what lies below is frozen (Lee et al. 2019, arXiv:1911.03090).

    Trainable parameters: those of the top `layers` layers, and of `extra` modules such as the last norm and the head.
    Adds nothing to the model. Keeps for backward: as full fine-tuning from the lowest trained layer on, and nothing
    below it, where no gradient goes: unless checkpointing makes the embedding's output require one.
    """

    layers: int = option(
        2, "--layers", "how many of the top layers train", aliases=("--freeze-trainable-layers",), size=True
    )
    extra: tuple[str, ...] = option(
        (),
        "--extra",
        "further modules to train, by name or suffix: norm, lm_head, …",
        aliases=("--extra-modules", "--freeze-extra-modules"),
    )

    @property
    def layers_alike(self) -> bool:
        return False

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        if self.layers > model.depth:
            raise InvalidWorkload(f"--layers {self.layers} is more than the {model.depth} layers that the model has")
        top = tuple(f"{model.layers}.{index}." for index in range(model.depth - self.layers, model.depth))
        extra = {name for name in model.parameters if any(goes_by(module, self.extra) for module in _above(name))}
        if self.extra and not extra:
            known = sorted({name.split(".")[1] for name in model.parameters if name.count(".") > 1})
            raise InvalidWorkload(
                f"--extra {shown(','.join(self.extra))} matches no module with parameters of its own; "
                f"this model has {', '.join(known)}"
            )
        return frozenset(name for name in model.parameters if name in extra or name.startswith(top))


def _above(parameter: str) -> Iterator[str]:
    """The modules that a parameter belongs to, from the innermost out."""
    module = parameter.rpartition(".")[0]
    while module:
        yield module
        module = module.rpartition(".")[0]


METHOD = Freeze
