"""Clipping of gradients, block by block.

Source: PyTorch 2.13, torch/nn/utils/clip_grad.py, clip_grad_norm_.
"""

from collections.abc import Mapping
from math import prod

from memcalc.kernels import foreach_norm_scratch
from memcalc.step.updates import by_dtype
from memcalc.tape.tape import Array, Leaf, Tensor, leaf_of, new, scratch, tape


def clip(trained: list[Tensor], times: Mapping[Leaf, int]) -> Array | None:
    """clip_grad_norm_ by the foreach kernels; the total norm is returned, and lives as long as the caller keeps it.

    Where nothing has a gradient it is a number of the host's.

    `times` tells how many of the whole model's tensors each leaf stands for.
    """
    groups = by_dtype([leaf for leaf in map(leaf_of, trained) if leaf.grad is not None])
    if not groups:
        return None
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
