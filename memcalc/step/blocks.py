"""An optimizer that steps one block of the parameters at a time, in fp32 copies.

Source: badam 1.4, block_optim.py, BlockOptimizer; the functions have its locals, since locals decide lifetimes.
"""

from memcalc.methods.base import SWITCH_EVERY
from memcalc.optimizers import Optimizer
from memcalc.step.loading import Loaded, link
from memcalc.step.optimizer import Habits, States
from memcalc.tape.builder import Builder
from memcalc.tape.tape import Leaf, Tensor, leaf_of, like, tape


class InBlocks(States):
    """The block under way: its parameters, their copies, and what the optimizer keeps of these."""

    def __init__(self, row: Optimizer, m: Builder, loaded: Loaded, habits: Habits, start: int) -> None:
        super().__init__(row._replace(takes_grad_scale=False), [], habits)
        self.m, self.loaded = m, loaded
        self.current, self.steps = start % len(loaded.model.blocks), 0
        self.copies: dict[Leaf, Leaf] = {}
        self._switch()

    def prepare(self) -> None:
        """After a round the lowest block is under way."""
        self.current = 0
        self._switch()
        super().prepare()

    def step(self) -> None:
        """The step of the copies, after which parameters follow them; the block may be switched."""
        self._hand_gradients_over()
        super().step()
        self._copy_back()
        for copy in self.copies.values():
            copy.grad = None
        tape.timeline.empty_cache()
        self.steps += 1
        if (self.steps + 1) % SWITCH_EVERY == 0:
            self._switch()

    def zero_grad(self, to: str) -> None:
        """The step has taken all gradients away."""

    def _hand_gradients_over(self) -> None:
        """_grad_to_hp: fp32 gradients of the copies, one by one."""
        for leaf, copy in self.copies.items():
            grad = leaf.grad
            assert grad is not None
            tape.scope = leaf.scope
            copy.grad = grad if grad.dtype == "fp32" else like(grad, "to", "fp32", "workspace")
            leaf.grad = None
            del grad

    def _copy_back(self) -> None:
        """_update_param: a copy in the parameter's dtype, which is copied into it."""
        for leaf, copy in self.copies.items():
            if leaf.array.dtype != copy.array.dtype:
                tape.scope = leaf.scope
                like(copy.array, "to", leaf.array.dtype, "workspace")

    def _switch(self) -> None:
        """switch_trainable_params: the old copies and their states die when all of the new copies are there."""
        block = self.loaded.model.blocks[self.current]
        self.copies = {}
        groups: list[list[Leaf]] = [[], []]
        for name, parameter in self.loaded.trained.items():
            self.m.parameters[name] = parameter if name in block else Tensor(parameter.data)
            if name in block:
                leaf = leaf_of(parameter)
                copy = self.copies[leaf] = _in_fp32(leaf)
                groups["bias" in name].append(copy)
        link(self.m, self.loaded.model)
        self.groups = groups
        self.kept = {}
        self.current = (self.current - 1) % len(self.loaded.model.blocks)


def _in_fp32(leaf: Leaf) -> Leaf:
    """parameter.clone().float(), whose clone is the copy already where the parameter is fp32."""
    tape.scope = leaf.scope
    copy = like(leaf.array, "clone", category="optimizer_states")
    if copy.dtype != "fp32":
        copy = like(copy, "to", "fp32", "optimizer_states")
    return Leaf(copy, "workspace")
