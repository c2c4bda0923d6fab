"""GradScaler: scalars on the device that scale the loss and remember infinities.

Source: PyTorch 2.13, torch/amp/grad_scaler.py.
"""

from memcalc.step.optimizer import States
from memcalc.tape.ops.elementwise import mul
from memcalc.tape.tape import Array, Tensor, new


class Scaler:
    """The scaler's own tensors, and what its calls allocate."""

    def __init__(self) -> None:
        self.scale_and_growth: list[Array] = []  # made at the first loss
        self.found_inf: list[Array] = []  # from unscaling to the next update

    def prepare(self) -> None:
        """The scale and its growth, made at the first loss."""
        self.scale_and_growth = [new((), "fp32", "full"), new((), "int32", "full")]

    def scale(self, loss: Tensor) -> Tensor:
        """loss times the scale."""
        if not self.scale_and_growth:
            self.prepare()
        return mul(loss, Tensor(self.scale_and_growth[0]))

    def unscale(self) -> None:
        """Gradients are divided in place by the inverse of the scale."""
        double = new((), "fp64", "to")
        inverse_double = new((), "fp64", "reciprocal")
        del double
        inverse = new((), "fp32", "to")
        del inverse_double
        self._look_for_infinities(inverse)

    def _look_for_infinities(self, inverse: Array) -> None:
        """The device's copies of both scalars are made; of the infinities only the copy is kept."""
        found = new((), "fp32", "full")
        self.found_inf = [new((), "fp32", "to")]
        copied = new((), inverse.dtype, "to")
        del found, copied

    def step(self, states: States) -> None:
        """The optimizer's step; a fused one is given the scale and the infinities instead of unscaled gradients."""
        if states.row.takes_grad_scale:
            self._fused_step(states)
            return
        if not self.found_inf:
            self.unscale()
        states.step()

    def _fused_step(self, states: States) -> None:
        unscaled = bool(self.found_inf)
        if not unscaled:
            self._look_for_infinities(new((), "fp32", "full"))
        found = new((), "fp32", "add")
        scale = None if unscaled else new((), "fp32", "mul")
        states.step()
        del found, scale

    def update(self) -> None:
        """The scale grows or shrinks in place; the infinities are forgotten."""
        self.found_inf = []
