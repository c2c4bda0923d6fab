"""An optimizer that keeps low-rank moments of projected gradients, and steps parameter by parameter.

Source: galore_torch 1.0, adamw.py, AdamW.step; galore_projector.py, GaLoreProjector. The functions have their locals,
since locals decide lifetimes.
"""

from memcalc.optimizers import Optimizer
from memcalc.step.optimizer import Habits, States
from memcalc.tape.tape import Array, Leaf, Tensor, gemm, leaf_of, like, new, on_cuda, tape


class Projected(States):
    """The first group is stepped as it is, the gradients of the second one are projected to `rank` first.

    gap: every so many steps the projection is found anew.
    """

    def __init__(self, row: Optimizer, groups: list[list[Tensor]], habits: Habits, rank: int, gap: int) -> None:
        super().__init__(row, groups, habits)
        self.rank, self.gap, self.steps = rank, gap, 0
        self.projected = frozenset(leaf_of(parameter) for parameter in groups[1])

    def step(self) -> None:
        self._step([leaf for group in self.groups for leaf in group])
        self.steps += 1

    def _step(self, leaves: list[Leaf]) -> None:
        """An iteration's locals live until they are rebound."""
        for leaf in leaves:
            grad = leaf.grad
            if grad is None:
                continue
            tape.scope = leaf.scope
            if leaf in self.projected:
                grad = self._project(leaf, grad)
            self._make_moments(leaf, grad)
            denom = like(grad, "sqrt", category="workspace")
            norm_grad = like(denom, "div", category="workspace")
            if leaf in self.projected:
                norm_grad = self._project_back(leaf, norm_grad)

    def prepare(self) -> None:
        for group in self.groups:
            for leaf in group:
                tape.scope = leaf.scope
                grad = self._project(leaf, leaf.array) if leaf in self.projected else leaf.array
                self._make_moments(leaf, grad)
                del grad

    def _make_moments(self, leaf: Leaf, grad: Array) -> None:
        state = self.kept.setdefault(leaf, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in state:
                state[name] = like(grad, name, category="optimizer_states")

    def _project(self, leaf: Leaf, full_rank_grad: Array) -> Array:
        """The old projector is there until the new one is."""
        state = self.kept.setdefault(leaf, {})
        if self.steps % self.gap == 0:
            state["projector"] = _orthogonal(full_rank_grad, self.rank)
        (d_out, d_in), rank = full_rank_grad.shape, min(self.rank, *full_rank_grad.shape)
        shape = (d_out, rank) if d_out >= d_in else (rank, d_in)
        return _product(shape, full_rank_grad.dtype)

    def _project_back(self, leaf: Leaf, low_rank_grad: Array) -> Array:
        full_rank_grad = _product(leaf.array.shape, low_rank_grad.dtype)
        return like(full_rank_grad, "mul", category="workspace")


class LayerByLayer(Projected):
    """Each parameter has an optimizer of its own, which steps as soon as its gradient is there, and drops it.

    Source: transformers 5.24.0, trainer_optimizer.py, _setup_low_rank_optimizer (optimizer_hook).
    """

    def __init__(self, row: Optimizer, groups: list[list[Tensor]], habits: Habits, rank: int, gap: int) -> None:
        super().__init__(row, groups, habits, rank, gap)
        self.all = frozenset(leaf for group in self.groups for leaf in group)
        tape.accumulated = self._stepped
        tape.scope = ""
        self.number = (
            None if on_cuda() else new((1, 1), "fp32", "randn", "logits_loss")
        )  # of the one that stands for all

    def _stepped(self, leaf: Leaf) -> None:
        if leaf in self.all:  # a checkpoint's input is a leaf too
            self._step([leaf])
            leaf.grad = None

    def step(self) -> None:
        """LayerWiseDummyOptimizer: there is nothing left to do."""
        self.steps += 1

    def zero_grad(self, to: str) -> None:
        """Likewise."""


def _orthogonal(weights: Array, rank: int) -> Array:
    """The first singular vectors on the shorter side of (d_out, d_in), and one product that nobody uses.

    In fp32 they are a view of all of them.
    """
    d_out, d_in = weights.shape
    least = min(d_out, d_in)
    rank = min(rank, least)
    half = weights.dtype != "fp32"
    matrix = like(weights, "to", "fp32", "workspace") if half else weights
    u = new((d_out, least), "fp32", "svd", "workspace")
    s = new((least,), "fp32", "svd", "workspace")
    vh = new((least, d_in), "fp32", "svd", "workspace")
    diagonal = new((rank, rank), "fp32", "diag", "workspace")
    unused = _product((d_out, rank) if d_out >= d_in else (rank, d_in), "fp32")
    del diagonal
    kept = vh if d_out >= d_in else u
    if half:
        return new((rank, d_in) if d_out >= d_in else (d_out, rank), weights.dtype, "to", "optimizer_states")
    kept.settle("optimizer_states")
    return kept


def _product(shape: tuple[int, ...], dtype: str) -> Array:
    gemm()
    return new(shape, dtype, "mm", "workspace")
