"""The loss that keeps AdaLoRA's A and B orthogonal: its own part of every training step, for all targets at once.

Source: peft 0.21.2, tuners/adalora/model.py, AdaLoraModel.forward.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from memcalc.tape.ops.elementwise import added_in_place, scale, shift, sub
from memcalc.tape.ops.linear import mm
from memcalc.tape.ops.reductions import vector_norm
from memcalc.tape.ops.views import transpose
from memcalc.tape.tape import Tensor, like, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Output


def regularized(m: "Builder", outputs: "Output", loss: Tensor) -> "Output":
    """The output, its loss grown in place."""
    scope, category = tape.scope, tape.category
    tape.category = "logits_loss"
    total: Tensor | None = None
    for name, p in m.parameters.items():
        module, _, part = name.rpartition(".lora_")
        if part not in ("A.default", "B.default"):
            continue
        tape.scope = module
        covariance = mm(p, transpose(p, 0, 1)) if part[0] == "A" else mm(transpose(p, 0, 1), p)
        identity = Tensor(like(covariance.data, "empty_like"))
        distance = vector_norm(sub(covariance, identity), None)
        total = shift(distance) if total is None else added_in_place(total, distance)
        del distance
    tape.scope = scope
    assert total is not None
    total = scale(total, "div")
    grown = added_in_place(loss, scale(total))
    tape.category = category
    return replace(outputs, loss=grown)
