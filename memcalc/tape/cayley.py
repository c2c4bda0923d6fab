"""The Cayley transform, which makes rotations of skew-symmetric matrices: composed, no rule of its own."""

from memcalc.tape.ops.elementwise import add, cast, sub
from memcalc.tape.ops.solving import solved_from_right
from memcalc.tape.ops.views import expand, view
from memcalc.tape.tape import Tensor, new


def cayley(skew: Tensor, dtype: str) -> Tensor:
    """(I - Q) (I + Q)^-1 of each Q (n, k, k), computed with an identity in fp32, in `dtype`."""
    _, k, _ = skew.shape
    identity = expand(view(Tensor(new((k, k), "fp32", "eye")), (1, k, k)), skew.shape)
    rotation = solved_from_right(add(identity, skew), sub(identity, skew))
    return cast(rotation, dtype)
