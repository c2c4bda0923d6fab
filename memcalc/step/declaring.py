"""What a model consists of: its forward is run once over shapes alone, and every parameter it asks for is noted."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from memcalc.families import Family
from memcalc.families.config import Config
from memcalc.methods.base import Method
from memcalc.tape import blocks
from memcalc.tape.builder import LINEAR, Adapter, Builder, Declared
from memcalc.tape.prelude import Batch
from memcalc.tape.tape import new, tape
from memcalc.timeline import Timeline

T = TypeVar("T")


class Architecture(NamedTuple):
    """What the forward, run once, told of the model: every parameter by full name, in order of registration."""

    base: dict[str, Declared]
    adapters: dict[str, Adapter]
    targets: frozenset[str]  # full names of the adapted linear layers


def parameter_order(model: Architecture) -> list[str]:
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


def declare(family: Family, c: Config, method: Method, attention: blocks.Attention) -> Architecture:
    """Run one layer's forward on a throw-away timeline, first without the method, then under it."""
    bare = _declare_once(family, c, Method(), attention, frozenset())
    base = dict(_registered(bare.declared, family, c.layers))
    linears = [name.removesuffix(".weight") for name, d in base.items() if d.kind in LINEAR]
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
    m = Builder(method, c.layers, attention, targets, declaring=True)
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
            yield from (
                (name, value) for name, value in declared.items() if name == module or name.startswith(f"{module}.")
            )
