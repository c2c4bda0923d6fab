"""Linear layers' weights as a family or a method meets them; packed ones are in ops/quantized.py."""

from typing import Protocol

from memcalc.tape.ops.elementwise import add
from memcalc.tape.ops.linear import conv1d, linear, linear_by_hand
from memcalc.tape.ops.views import transpose
from memcalc.tape.tape import Tensor


class Weight(Protocol):
    """A linear layer's weight in some format; `linear` multiplies by it."""

    bias: Tensor | None

    @property
    def d_in(self) -> int: ...
    @property
    def d_out(self) -> int: ...
    @property
    def packed(self) -> int: ...  # bits of its codes; 0: it is stored in a floating-point dtype
    @property
    def turned(self) -> bool: ...  # Conv1D's (d_in, d_out)
    def linear(self, x: Tensor) -> Tensor: ...
    def dense(self) -> Tensor: ...


class Plain:
    """A weight (d_out, d_in) stored in a floating-point dtype."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    @property
    def d_in(self) -> int:
        return self.weight.shape[1]

    @property
    def d_out(self) -> int:
        return self.weight.shape[0]

    @property
    def packed(self) -> int:
        return 0

    @property
    def turned(self) -> bool:
        return False

    def linear(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def dense(self) -> Tensor:
        """The weight (d_out, d_in) in a floating-point dtype: itself, where it is stored in one."""
        return self.weight


class Transposed(Plain):
    """Conv1D's weight (d_in, d_out)."""

    __slots__ = ()

    @property
    def d_in(self) -> int:
        return self.weight.shape[0]

    @property
    def d_out(self) -> int:
        return self.weight.shape[1]

    @property
    def turned(self) -> bool:
        return True

    def linear(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return conv1d(x, self.weight, self.bias)

    def dense(self) -> Tensor:
        return transpose(self.weight, 0, 1)


class Unfused(Plain):
    """A weight (d_out, d_in) by whose transpose the model multiplies itself, its bias added behind."""

    __slots__ = ()

    def linear(self, x: Tensor) -> Tensor:
        out = linear_by_hand(x, self.weight)
        return out if self.bias is None else add(out, self.bias)


LINEAR: dict[str, type[Plain]] = {"linear": Plain, "conv1d": Transposed, "matmul": Unfused}  # by kind
PACKABLE = ("linear", "conv1d")  # kinds that quantization replaces: modules of torch's and transformers' own classes
