"""Where in the step an operator runs: the module, forward or backward, and so what its new blocks are."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from memcalc.tracing.private_api import current_node, in_backward, next_sequence_number

_STAGES = {  # what a block made outside of the engine is by default
    "load": "workspace",
    "prepared": "logits_loss",  # the running loss
    "backward": "logits_loss",  # the loss is scaled and asked whether it is finite
    "optimizer": "workspace",
}
_FILLED = ("empty", "zeros", "ones", "_to_copy", "clone")  # while loading: a tensor that holds weights, no intermediate
_DEQUANTIZED = ("dequantize_4bit", "dequantize_blockwise")
_PRODUCTS = ("mm", "addmm", "bmm", "gemm_4bit", "int8_linear_matmul")
_LATEST = 2**63  # AccumulateGrad nodes carry a number above any that forward hands out


class Place:
    """Follows the modules being called, and remembers which one numbered which autograd nodes.

    A block of the forward belongs to the module on top of the call stack. A block of the backward belongs
    to the module that was on top when the running node was made: nodes carry a sequence number, and
    `_numbers` notes the next number wherever the stack changes.
    """

    def __init__(self, *, loss_outside: bool = False, headless: bool = False) -> None:
        self.stage = "load"
        self.loss_outside = loss_outside  # what no module makes in the forward is the loss, whatever the head
        self.headless = headless  # the head is never called: the loss begins where the decoder returns
        self._override: str | None = None
        self._names: dict[int, str] = {}
        self._stack: list[str] = []
        self._numbers: list[int] = []
        self._owners: list[str] = []
        self._prefix = self._head = self._decoder = ""
        self._in_logits = False

    def know(self, model: nn.Module) -> None:
        """Learn the names of a model's modules and parameters, relative to the base model, and its head."""
        get_base = getattr(model, "get_base_model", None)
        base: Any = get_base() if callable(get_base) else model
        self._prefix = next((name for name, module in model.named_modules() if module is base), "")
        for name, module in model.named_modules():
            self._names[id(module)] = self.relative(name)
        for name, parameter in model.named_parameters():
            self._names[id(parameter)] = self.name_of(name)[0]
        head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        self._head = next((self._names[id(m)] for m in base.modules() if m is head), "")
        if self.headless:
            self._decoder = self._names[id(base.base_model)]

    def relative(self, path: str) -> str:
        """A path from the outermost wrapper, seen from the base model."""
        return path.removeprefix(self._prefix).removeprefix(".")

    def name_of(self, tensor: str) -> tuple[str, str]:
        """(module, name) of a parameter or buffer."""
        module, _, name = tensor.rpartition(".")
        return self.relative(module), name

    @property
    def depth(self) -> int:
        """How many modules' forwards are running, one inside the other."""
        return len(self._stack)

    def enter(self, stage: str) -> None:
        """A stage of the step begins: load, forward, backward or optimizer."""
        self.stage = stage
        if stage == "forward":
            self._numbers, self._owners, self._in_logits = [], [], False
            self._note()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow module calls inside a `with` block."""
        hooks = [
            register_module_forward_pre_hook(self._called),
            register_module_forward_hook(self._returned, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def category(self, name: str) -> Iterator[None]:
        """Blocks born inside a `with` block are of this category."""
        before, self._override = self._override, name
        try:
            yield
        finally:
            self._override = before

    def of(self, op: str) -> tuple[str, str, str]:
        """(category, module, op as shown) of a block that `op` makes now."""
        if not in_backward():
            module = self._stack[-1] if self._stack else ""
            return self._override or self._category(op, module), module, op
        node = current_node()
        module = self._owner(node)
        if torch.is_grad_enabled():  # a checkpointed layer runs again
            module = self._stack[-1] if self._stack else module
            return self._override or self._activation(op, module), module, f"{op} (recomputed)"
        if self._in_logits and module and self._ends_the_loss(module):
            self._in_logits = False
        shown = op if "backward" in op else f"{op} (backward)"
        return self._override or self._activation(op, module), module, shown

    def _category(self, op: str, module: str) -> str:
        """Of a block that no engine makes."""
        if self.stage == "load" and op.startswith(_FILLED):
            return "weights"
        if self.stage == "forward":
            if op in _PRODUCTS and self._within_head(module):
                self._in_logits = True  # what the head does before its product, a cast of its input, is no logits
            return self._activation(op, module)
        return _STAGES[self.stage]

    def _activation(self, op: str, module: str) -> str:
        if op in _DEQUANTIZED:
            return "workspace"
        loss = self._in_logits or (self.loss_outside and not module)
        return "logits_loss" if loss else "activations"

    def _ends_the_loss(self, module: str) -> bool:
        """Whether the backward of this module comes behind that of the loss and the logits."""
        return module.startswith(f"{self._decoder}.") if self.headless else self._within_head(module)

    def _within_head(self, module: str) -> bool:
        return bool(self._head) and (module == self._head or module.startswith(self._head + "."))

    def _owner(self, node: Any) -> str:
        number = getattr(node, "_sequence_nr", int)()
        if number >= _LATEST:
            return self._names.get(id(node.variable), "")
        at = bisect_right(self._numbers, number) - 1
        return self._owners[at] if at >= 0 else ""

    def _called(self, module: nn.Module, args: Any) -> None:
        name = self._names.get(id(module))
        if name is None:
            name = self._stack[-1] if self._stack else ""
        self._stack.append(name)
        self._note()

    def _returned(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self._stack.pop()
        if self.headless and name == self._decoder and not in_backward():
            self._in_logits = True
        self._note()

    def _note(self) -> None:
        self._numbers.append(next_sequence_number())
        self._owners.append(self._stack[-1] if self._stack else "")
