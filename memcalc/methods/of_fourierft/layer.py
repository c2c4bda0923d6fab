"""An update made anew in every forward, of few numbers that train at random places: FourierFT's and WaveFT's.

Source: peft 0.21.2, tuners/fourierft/layer.py, FourierFTLinear.forward; the same in tuners/waveft. Their targets, where
they differ from LoRA's: utils/constants.py, TRANSFORMERS_MODELS_TO_FOURIERFT_TARGET_MODULES_MAPPING, and WAVEFT's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from memcalc.anatomy import DEFAULT_TARGETS
from memcalc.errors import InvalidWorkload
from memcalc.tape.ops.elementwise import add, cast
from memcalc.tape.ops.linear import linear

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

Update = Callable[["Tensor", "Weight"], "Tensor"]  # (n,) -> (d_out, d_in)

_TARGETS = {"gpt2": ("mlp.c_proj",), "gpt_bigcode": ("mlp.c_proj",)}


def default_targets(model_type: str) -> tuple[str, ...]:
    """What is adapted where no target is given."""
    return _TARGETS.get(model_type) or DEFAULT_TARGETS.get(model_type, ())


def adapted(m: "Builder", x: "Tensor", w: "Weight", name: str, part: str, count: int, update_of: Update) -> "Tensor":
    """The target's output: x (b, s, d_in) -> (b, s, d_out); `count` numbers train as its `part`. Its call keeps x."""
    if count > w.d_in * w.d_out:
        raise InvalidWorkload(
            f"peft refuses this: --n-frequency {count} is above the {w.d_in * w.d_out} entries of {name}"
        )
    spectrum = m.adapter(name, part, (count,))
    result = w.linear(x)
    update = update_of(spectrum, w)
    x_cast = cast(x, update.dtype)
    result = add(result, linear(x_cast, update))
    return cast(result, x.dtype)
