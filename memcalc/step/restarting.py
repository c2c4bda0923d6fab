"""Adapters that are merged into the weights and begin anew; memcalc/realize/restarting.py is the same for real ones."""

from memcalc.errors import NotModelled
from memcalc.methods.base import Method
from memcalc.step.declaring import Architecture, parameter_order
from memcalc.tape.builder import Builder
from memcalc.tape.tape import tape


def restart(m: Builder, model: Architecture, method: Method) -> None:
    """One target after the other; adapters and states are set in place. The products are none of the step's own."""
    outer, tape.grad, tape.work = (tape.grad, tape.work), False, None
    adapters = (model.adapters[name].module(name) for name in parameter_order(model) if name in model.adapters)
    for module in dict.fromkeys(adapters):
        if module in model.targets:
            if m.weights[module].packed:
                raise NotModelled("estimate does not write a restart's merge into --quant: memcalc profile measures it")
            tape.scope = module
            method.restart(m, module)
    tape.grad, tape.work = outer
