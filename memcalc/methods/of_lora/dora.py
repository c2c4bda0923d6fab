"""DoRA's part of a LoRA layer: a magnitude for each output, over the norm of the adapted weight.

Source: peft 0.21.2, tuners/lora/dora.py, DoraLinearLayer; tuners/lora/variants.py, DoraLinearVariant.
"""

from typing import TYPE_CHECKING

from memcalc.tape.ops.elementwise import add, cast, divided, dropout, mul, scale, shift, sub
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.quantized import Packed4Bit
from memcalc.tape.ops.reductions import vector_norm
from memcalc.tape.ops.views import transpose, view
from memcalc.tape.tape import Array, Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

A, B = "lora_A.default.weight", "lora_B.default.weight"
MAGNITUDE = "lora_magnitude_vector.default.weight"


def adapted(x: Tensor, result: Tensor, w: "Weight", a: Tensor, b: Tensor, magnitude: Tensor, rate: float) -> Tensor:
    """DoraLinearVariant.forward: x (b, s, d_in) in A's dtype, the layer's own output (b, s, d_out) -> (b, s, d_out)."""
    dropped = dropout(x, rate)
    return add(result, _update(dropped, None if rate else result, w, a, b, magnitude))


def _update(x: Tensor, base: Tensor | None, w: "Weight", a: Tensor, b: Tensor, magnitude: Tensor) -> Tensor:
    """DoraLinearLayer.forward. Without a dropout the layer's own output serves, less its bias."""
    update = cast(_low_rank_product(a, b), x.dtype)
    weight = cast(w.dense(), x.dtype)
    norm = norm_of(weight, update.data)
    scales = view(divided(magnitude, norm), (1, w.d_out))
    low_rank = linear(linear(x, a), b)
    result = linear(x, weight) if base is None else _less_bias(base, w.bias)
    out = add(mul(shift(scales), result), scale(mul(scales, low_rank)))
    del update, weight, norm
    return out


def _less_bias(base: Tensor, bias: Tensor | None) -> Tensor:
    return base if bias is None else sub(base, bias)


def _low_rank_product(a: Tensor, b: Tensor) -> Tensor:
    """B A (d_out, d_in), by the forward of both over an identity matrix."""
    identity = Tensor(new((a.shape[1], a.shape[1]), a.dtype, "eye"))
    return transpose(linear(linear(identity, a), b), 0, 1)


def norm_of(weight: Tensor, update: Array) -> Array:
    """The norm of each row of weight + scaling * update, which takes no part in gradients: (d_out,)."""
    adapted_weight = add(weight, scale(Tensor(update)))  # lives until the norm has its dtype
    return cast(vector_norm(adapted_weight, 1), weight.dtype).data


def begin(m: "Builder", module: str) -> None:
    """DoraLinearVariant.init: A and B are there, and the magnitude is the norm of the weight with them.

    A packed layer is copied first. fp16 is raised for the product.
    """
    a, b = m.parameters[f"{module}.{A}"], m.parameters[f"{module}.{B}"]
    exact = [cast(x, "fp32") if x.dtype == "fp16" else x for x in (a, b)]
    packed, held = m.weights.get(module), []
    if isinstance(packed, Packed4Bit):
        held = packed.copied(m.parameters.get(f"{module}.bias"))
    weight = m.parameters[f"{module}.weight"] if packed is None else packed.dense()
    update = cast(mm(exact[1], exact[0]), a.dtype)
    turned = weight.shape != update.shape  # Conv1D's
    norm = norm_of(transpose(weight, 0, 1) if turned else weight, update.data)
    norm.settle("adapter")
    m.parameters[f"{module}.{MAGNITUDE}"] = Tensor(norm)  # computed, and so there
    del held
