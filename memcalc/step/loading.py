"""From nothing to a model on the device, block by block in the order of the real loading.

memcalc/realize/loading.py does the same with real tensors; its docstrings name the sources.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from memcalc.families import Family
from memcalc.families.config import Config
from memcalc.formats import HALF
from memcalc.methods.base import Method
from memcalc.tape import blocks
from memcalc.tape.builder import Adapter, Builder, Declared, Plain
from memcalc.tape.prelude import Batch
from memcalc.tape.tape import Leaf, Tensor, new, tape
from memcalc.timeline import Timeline
from memcalc.workload import Workload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the forward, run once, told of the model: every parameter by full name, in order of registration."""

    base: dict[str, Declared]
    adapters: dict[str, Adapter]
    targets: frozenset[str]  # full names of the adapted linear layers


def declare(family: Family, c: Config, method: Method, attention: blocks.Attention) -> Architecture:
    """Run one layer's forward on a throw-away timeline, first without the method, then under it."""
    bare = _declare_once(family, c, Method(), attention, frozenset())
    base = dict(_registered(bare.declared, family, c.layers))
    linears = [name.removesuffix(".weight") for name, d in base.items() if d.kind == "linear"]
    targets = method.targets(c.model_type, linears, family.HEAD)
    wrapped = _declare_once(family, c, method, attention, targets)
    adapters = {
        name: adapter
        for name, adapter in _registered(wrapped.declared_adapters, family, c.layers)
        if adapter.module(name) in targets
    }
    return Architecture(base, adapters, targets)


def _declare_once(
    family: Family, c: Config, method: Method, attention: blocks.Attention, targets: frozenset[str]
) -> Builder:
    tape.start(Timeline(), 0)
    m = Builder(method, c.layers, attention, targets=targets)
    ids = new((1, 2), "int64", "input_ids")
    family.forward(m, Batch(ids), c)
    return m


def _registered(declared: Mapping[str, T], family: Family, layers: int) -> Iterator[tuple[str, T]]:
    """Names of all layers in the order in which the real modules are registered; the forward told of layer 0."""
    prefix = f"{family.LAYERS}.0."
    inner = {name.removeprefix(prefix): value for name, value in declared.items() if name.startswith(prefix)}
    ordered = [
        (name, value)
        for module in family.LAYER_MODULES
        for name, value in inner.items()
        if name.startswith(f"{module}.")
    ]
    assert len(ordered) == len(inner), "LAYER_MODULES does not name every submodule"
    for module in family.MODULES:
        if module == family.LAYERS:
            for index in range(layers):
                yield from ((f"{family.LAYERS}.{index}.{name}", value) for name, value in ordered)
        else:
            yield from ((name, value) for name, value in declared.items() if name.startswith(f"{module}."))


def load(m: Builder, model: Architecture, w: Workload) -> list[Tensor]:
    """Phase "load". Fills the builder's parameters and weights; returns the trained ones in order of registration."""
    timeline = tape.timeline
    timeline.phase("load")
    tape.category = "weights"
    for name, declared in model.base.items():
        _place(m, name, declared, declared.dtype or w.dtype)
    _adapters(m, model, w)
    tape.category = "activations"
    trained = _mark_trained(m, model, w)
    _link(m, model)
    timeline.phase_end()
    return trained


def _place(m: Builder, name: str, declared: Declared, dtype: str) -> None:
    tape.scope = name.rpartition(".")[0]
    m.parameters[name] = Tensor(new(declared.shape, dtype, name.rpartition(".")[2]))


def _adapters(m: Builder, model: Architecture, w: Workload) -> None:
    """peft creates every adapter in its base weight's dtype, then raises half ones to fp32, one by one.

    Source: peft 0.21.2, tuners/tuners_utils.py, _move_adapter_to_device_of_base_layer, cast_adapter_dtype.
    """
    tape.category = "adapter"
    for name, adapter in model.adapters.items():
        tape.scope = adapter.module(name)
        m.parameters[name] = Tensor(new(adapter.shape, w.dtype, adapter.part))
    if w.autocast_adapter_dtype and w.dtype in HALF:
        for name, adapter in model.adapters.items():
            tape.scope = adapter.module(name)
            m.parameters[name] = Tensor(new(adapter.shape, "fp32", adapter.part))


def _mark_trained(m: Builder, model: Architecture, w: Workload) -> list[Tensor]:
    """Give what trains a leaf of the graph; buffers never train."""
    trained = []
    for name in _parameter_order(model):
        declared = model.base.get(name)
        if declared is not None and (declared.kind == "buffer" or not w.method.trains(name, model.targets)):
            continue
        old = m.parameters[name]
        tape.scope = name.rpartition(".")[0]
        m.parameters[name] = Tensor(old.data, Leaf(old.data, "gradients"))
        trained.append(m.parameters[name])
    return trained


def _parameter_order(model: Architecture) -> list[str]:
    """Every parameter in the order of model.parameters(): a target's adapters follow its base weight and bias."""
    following: dict[str, list[str]] = {}
    for name, adapter in model.adapters.items():
        following.setdefault(adapter.module(name), []).append(name)
    names = list(model.base)
    order: list[str] = []
    for position, name in enumerate(names):
        order.append(name)
        module = name.rpartition(".")[0]
        last = position + 1 == len(names) or names[position + 1].rpartition(".")[0] != module
        if last:
            order += following.pop(module, ())
    return order


def _link(m: Builder, model: Architecture) -> None:
    """Linear layers find their weight by the module's name."""
    for name, declared in model.base.items():
        if declared.kind == "linear":
            module = name.removesuffix(".weight")
            m.weights[module] = Plain(m.parameters[name], m.parameters.get(f"{module}.bias"))
