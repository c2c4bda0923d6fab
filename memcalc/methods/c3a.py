"""C3A: a frozen weight plus circulant blocks, multiplied by way of Fourier transforms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.linears import OnLinears, common_divisors, refuse_conv1d, refuse_in_place, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import added_in_place, cast, divide
from memcalc.tape.ops.fourier import circular

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

# Where they differ from LoRA's.
# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_C3A_TARGET_MODULES_MAPPING
_TARGETS = {"gpt2": ("mlp.c_proj",), "gpt_bigcode": ("mlp.c_proj",)}


@final
@dataclass(frozen=True, slots=True)
class C3A(OnLinears):
    """C3A: y = W x + C x / d_in, C of circulant blocks, each a convolution with a kernel that trains (Chen et al. 2024,
    arXiv:2407.19342, section 3).

    Trainable parameters: d_in * d_out / block_size per target. Keeps for backward: each target's input in fp32; makes
    besides, in forward and backward, several complex copies of the input and the output. What cuFFT works in is in
    neither estimate nor trace.
    """

    block_size: int = option(256, "--block-size", "side of a block, which divides d_in and d_out", size=True)
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "c3a_only"))

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return _TARGETS.get(model_type) or super(C3A, self).default_targets(model_type)

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Downwards: a larger block has fewer kernels beside it."""
        return [*reversed(common_divisors([width for shape in targets for width in shape])), 1]

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/c3a/layer.py, C3ALinear.forward. Its call keeps the first x."""
        refuse_conv1d(m, w, name)
        b = self.block_size
        for width in (w.d_in, w.d_out):
            if width % b:
                raise InvalidWorkload(
                    f"peft refuses this: the width {width} of {name} is no multiple of --block-size {b}"
                )
        own = m.adapter(name, "c3a_kernel.default", (w.d_out // b, w.d_in // b, b), on_device=True)
        result = w.linear(x)
        refuse_in_place(m, w, name)
        exact = cast(x, "fp32")
        kernels = cast(own, "fp32")
        exact = divide(circular(exact, kernels))
        result = added_in_place(result, cast(exact, result.dtype))
        return cast(result, x.dtype)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "C3A",
            "block_size": self.block_size,
            "target_modules": self.target_modules,
            "bias": self.bias,
        }


METHOD = C3A
