"""Clipping, the optimizer's step and GradScaler, block by block.

Source: PyTorch 2.13, torch/nn/utils/clip_grad.py, torch/optim/{adam,sgd}.py, torch/amp/grad_scaler.py.
"""

from memcalc.optimizers import Optimizer
from memcalc.tape.tape import Array, Leaf, Tensor, like, new, tape


def gradients(trained: list[Tensor]) -> list[Array]:
    """The gradients that exist."""
    return [leaf.grad for leaf in map(leaf_of, trained) if leaf.grad is not None]


def leaf_of(parameter: Tensor) -> Leaf:
    assert isinstance(parameter.node, Leaf)
    return parameter.node


def by_dtype(arrays: list[Array]) -> list[list[Array]]:
    """Groups of one dtype each, the dtype met last first.

    Source: PyTorch 2.13, ATen/native/ForeachUtils.h, _group_tensors_by_first_tensors_device_and_dtype: an
    unordered_map, whose newest bucket libstdc++ puts in front.
    """
    groups: dict[str, list[Array]] = {}
    for array in arrays:
        groups.setdefault(array.dtype, []).append(array)
    return list(reversed(groups.values()))


def clip(trained: list[Tensor]) -> Array:
    """clip_grad_norm_ by the foreach kernels; the total norm is returned, and lives as long as the caller keeps it."""
    groups = by_dtype(gradients(trained))
    norms = [new((), group[0].dtype, "_foreach_norm", "workspace") for group in groups for _ in group]
    total = _total_norm(norms, "fp32" if len(groups) > 1 else groups[0][0].dtype)
    del norms
    _coefficient(total)
    return total


def _total_norm(norms: list[Array], dtype: str) -> Array:
    stacked = new((len(norms),), dtype, "stack", "workspace")
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
            for leaf in leaves:
                if leaf not in self.kept:
                    self.kept[leaf] = self._make(leaf)
            _temporaries(self.row, leaves)

    def _make(self, leaf: Leaf) -> list[Array]:
        tape.scope = leaf.scope
        counted = [new((), "fp32", "step", "optimizer_states")] if self.row.step_on_device else []
        return counted + [like(leaf.array, name, category="optimizer_states") for name in self.names]

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
        for group in by_dtype([leaf.array for leaf in leaves]):
            roots = [like(array, "sqrt", category="workspace") for array in group]
        del roots
    elif row.temporaries == "one by one":
        denominator: Array | None = None
        for leaf in leaves:
            denominator = _over_bias_correction(leaf)
        del denominator


def _over_bias_correction(leaf: Leaf) -> Array:
    tape.scope = leaf.scope
    root = like(leaf.array, "sqrt", category="workspace")
    return like(root, "div", category="workspace")
