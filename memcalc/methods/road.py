"""RoAd: outputs in pairs, each rotated and scaled."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Target
from memcalc.errors import InvalidWorkload
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, cos, mul, neg, sin
from memcalc.tape.ops.views import clone_contiguous, expand, reshape, select, stack, view
from memcalc.tape.tape import Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_VARIANTS = {"road_1": 0.5, "road_2": 1.0, "road_4": 2.0}  # angles, and as many scales, for an output


@final
@dataclass(frozen=True, slots=True)
class Road(OnLinears):
    """RoAd: y = R W x, R scales and rotates pairs of outputs (Liao and Monz 2024, arXiv:2409.00119, section 3.2).

    Trainable parameters: d_out per target, half of them angles and half scales; road_2 twice, road_4 four times as
    many. Keeps for backward, per target: its output, and that with both halves of each group exchanged, both in the
    adapters' dtype.
    """

    variant: str = option("road_1", "--variant", "how much of a rotation is shared", choices=tuple(_VARIANTS))
    group_size: int = option(64, "--group-size", "outputs of whose halves pairs are made; d_out is a multiple of it")
    target: tuple[str, ...] = target_option()

    def __post_init__(self) -> None:
        if self.group_size % 2:
            raise InvalidWorkload(f"--group-size {self.group_size} has no halves: it must be even")

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/road/layer.py, Linear.forward; bnb.py, Linear4bit.forward over a packed weight."""
        refuse_conv1d(m, w, name)
        if w.d_out % self.group_size:
            raise InvalidWorkload(
                f"peft refuses this: the {w.d_out} outputs of {name} are no multiple of --group-size {self.group_size}"
            )
        count = int(_VARIANTS[self.variant] * w.d_out)
        angles = m.adapter(name, "road_theta.default", (count,))
        scales = m.adapter(name, "road_alpha.default", (count,))
        result = w.linear(x)
        dtype = result.dtype
        if not w.packed or tape.autocast is None:
            result = cast(result, angles.dtype)
        result = self._rotated(angles, scales, result)
        return result if w.packed else cast(result, dtype)

    def _rotated(self, angles: Tensor, scales: Tensor, x: Tensor) -> Tensor:
        """_apply_road."""
        first, second = self._columns(angles, scales)
        half = self.group_size // 2
        grouped = reshape(x, (prod(x.shape) // self.group_size, 2, half))
        x1 = select(grouped, 1)
        x2 = select(grouped, 1)
        exchanged = reshape(stack((neg(x2), x1), 1), x.shape)
        result = add(mul(x, first), mul(exchanged, second))
        return result

    def _columns(self, angles: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """_prepare_cols: scaled cosines and sines (d_out,)."""
        if self.variant == "road_4":
            by_group = (angles.shape[0] // (2 * self.group_size), 2, self.group_size)
            both = view(angles, by_group)
            cosine = _flat(cos(select(both, 1)))
            sine = _flat(sin(select(both, 1)))
            scales_of_both = view(scales, by_group)
            first, second = _flat(select(scales_of_both, 1)), _flat(select(scales_of_both, 1))
            return mul(first, cosine), mul(second, sine)
        if self.variant == "road_1":
            angles, scales = self._doubled(angles), self._doubled(scales)
        cosine, sine = cos(angles), sin(angles)
        return mul(scales, cosine), mul(scales, sine)

    def _doubled(self, x: Tensor) -> Tensor:
        """Each half of a group for both: repeat_interleave."""
        half = self.group_size // 2
        groups = x.shape[0] // half
        twice = expand(view(x, (groups, 1, half)), (groups, 2, half))
        return view(view(clone_contiguous(twice), (groups * 2, half)), (groups * 2 * half,))

    def rewritten(self, target: Target) -> int:
        return target.weight + target.bias

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "ROAD",
            "variant": self.variant,
            "group_size": self.group_size,
            "target_modules": self.target_modules,
        }


def _flat(x: Tensor) -> Tensor:
    return reshape(x, (x.shape[0] * x.shape[1],))


METHOD = Road
