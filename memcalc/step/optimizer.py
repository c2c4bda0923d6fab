"""Clipping, the optimizer's step and GradScaler, block by block.

Source: PyTorch 2.13, torch/nn/utils/clip_grad.py, torch/optim/{adam,sgd}.py, torch/amp/grad_scaler.py.
"""

from collections.abc import Mapping
from math import prod

from memcalc.kernels import foreach_norm_scratch
from memcalc.optimizers import Optimizer
from memcalc.tape.tape import Array, Leaf, Tensor, leaf_of, like, new, scratch, tape


def by_dtype(leaves: list[Leaf]) -> list[list[Leaf]]:
    """Groups of one dtype each, the dtype met last first.

    Source: PyTorch 2.13, ATen/native/ForeachUtils.h, _group_tensors_by_first_tensors_device_and_dtype: an
    unordered_map, whose newest bucket libstdc++ puts in front.
    """
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.array.dtype, []).append(leaf)
    return list(reversed(groups.values()))


def clip(trained: list[Tensor], times: Mapping[Leaf, int]) -> Array:
    """clip_grad_norm_ by the foreach kernels; the total norm is returned, and lives as long as the caller keeps it.

    `times` tells how many of the whole model's tensors each leaf stands for.
    """
    groups = by_dtype([leaf for leaf in map(leaf_of, trained) if leaf.grad is not None])
    norms: list[Array] = []
    for group in groups:
        norms += _norms(group, sum(times[leaf] for leaf in group))
    tape.scope = ""
    total = _total_norm(
        sum(times[leaf] for group in groups for leaf in group), norms[0].dtype if len(groups) == 1 else "fp32"
    )
    del norms
    _coefficient(total)
    return total


def _norms(group: list[Leaf], count: int) -> list[Array]:
    """_foreach_norm of a group, which is `count` tensors in the whole model."""
    largest = max(prod(leaf.array.shape) for leaf in group)
    tape.scope = ""
    held = scratch(foreach_norm_scratch([largest] * count).before, "_foreach_norm")
    norms = [_norm(leaf) for leaf in group]
    del held
    return norms


def _norm(leaf: Leaf) -> Array:
    tape.scope = leaf.scope
    return new((), leaf.array.dtype, "_foreach_norm", "workspace")


def _total_norm(count: int, dtype: str) -> Array:
    stacked = new((count,), dtype, "stack", "workspace")
    total = new((), dtype, "linalg_vector_norm", "workspace")
    del stacked
    return total


def _coefficient(total: Array) -> None:
    """max_norm / (total_norm + 1e-6), clamped; the gradients are scaled in place."""
    raised = new((), total.dtype, "add", "workspace")
    inverse = new((), total.dtype, "reciprocal", "workspace")
    coefficient = new((), total.dtype, "mul", "workspace")
    del raised, inverse
    clamped = new((), total.dtype, "clamp", "workspace")
    del coefficient, clamped


class States:
    """An optimizer and what it keeps between steps: per trained tensor its states, made in its first step."""

    def __init__(self, row: Optimizer, groups: list[list[Tensor]], momentum: float) -> None:
        self.row = row
        self.groups = groups
        self.names = () if row.born_from_gradient and not momentum else row.states
        self.kept: dict[Leaf, list[Array]] = {}

    def step(self) -> None:
        """One step over every group of parameters."""
        for group in self.groups:
            leaves = [leaf for leaf in map(leaf_of, group) if leaf.grad is not None]
            for leaf in self._first_seen(leaves):
                self.kept[leaf] = self._make(leaf)
            _temporaries(self.row, leaves)

    def _first_seen(self, leaves: list[Leaf]) -> list[Leaf]:
        """Leaves without states yet, in the order in which these are made: those of gradients dtype by dtype."""
        fresh = [leaf for leaf in leaves if leaf not in self.kept]
        return [leaf for group in by_dtype(fresh) for leaf in group] if self.row.born_from_gradient else fresh

    def _make(self, leaf: Leaf) -> list[Array]:
        tape.scope = leaf.scope
        counted = [new((), "fp32", "step", "optimizer_states")] if self.row.step_on_device else []
        return counted + [like(leaf.array, name, category="optimizer_states") for name in self.names]

    def prepare(self) -> None:
        """All states at once, as a first step leaves them."""
        for group in self.groups:
            for leaf in self._first_seen([leaf_of(parameter) for parameter in group]):
                self.kept[leaf] = self._make(leaf)

    def zero_grad(self, to: str) -> None:
        """Gradients are dropped, or zeroed in place."""
        if to == "none":
            for group in self.groups:
                for parameter in group:
                    leaf_of(parameter).grad = None


def _temporaries(row: Optimizer, leaves: list[Leaf]) -> None:
    """The square root of the second moment: of a whole group of one dtype at once, or tensor by tensor.

    A list or a tensor of the turn before dies when its name is bound anew.
    """
    if row.temporaries == "all at once":
        roots: list[Array] = []
        for group in by_dtype(leaves):
            roots = [_root(leaf) for leaf in group]
        del roots
    elif row.temporaries == "one by one":
        denominator: Array | None = None
        for leaf in leaves:
            denominator = _over_bias_correction(leaf)
        del denominator


def _over_bias_correction(leaf: Leaf) -> Array:
    root = _root(leaf)
    return like(root, "div", category="workspace")


def _root(leaf: Leaf) -> Array:
    tape.scope = leaf.scope
    return like(leaf.array, "sqrt", category="workspace")
