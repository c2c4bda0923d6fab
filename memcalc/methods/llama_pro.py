"""LLaMA Pro: copies of some layers are put in, and train."""

from dataclasses import dataclass
from typing import ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind, Method
from memcalc.options import option


@final
@dataclass(frozen=True, slots=True)
class LlamaPro(Method):
    """LLaMA Pro: copies of layers are put in between, and they alone train (Wu et al. 2024, arXiv:2401.02415,
    section 3.2).

    Behind every group of layers stands a copy of its last one, whose sub-layers end in zeros at first: it changes
    nothing then.

    Trainable parameters: those of `new_blocks` layers, which the model has besides its own. Keeps for backward: as full
    fine-tuning in the copies, in what lies above the lowest of them what any gradient needs, and nothing below it,
    unless checkpointing makes the embedding's output require a gradient.
    """

    kind: ClassVar[Kind] = "lean"
    new_blocks: int = option(
        8, "--new-blocks", "copies of layers, spread evenly", aliases=("--num-expand", "--freeze-trainable-layers")
    )

    @property
    def layers_alike(self) -> bool:
        return False

    def deeper(self, depth: int) -> int:
        if depth % self.new_blocks:
            raise InvalidWorkload(f"--new-blocks {self.new_blocks} does not divide the {depth} layers of this model")
        return depth + self.new_blocks

    def copied(self, depth: int) -> frozenset[int]:
        group = depth // self.new_blocks
        return frozenset(range(group - 1, depth, group))

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        copies = tuple(f"{model.layers}.{index}." for index in self.copied(model.depth))
        return frozenset(name for name in model.parameters if name.startswith(copies))


METHOD = LlamaPro
