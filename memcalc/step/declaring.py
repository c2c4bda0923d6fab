"""What a model consists of: its forward is run once over shapes alone, and every parameter it asks for is noted."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from math import prod
from typing import NamedTuple, TypeVar

from memcalc.anatomy import Anatomy, Target
from memcalc.families import Family
from memcalc.families.config import Config
from memcalc.methods.base import Method
from memcalc.tape import attending
from memcalc.tape.builder import Builder
from memcalc.tape.declared import Adapter, Common, Declared, Lookup, Sizes
from memcalc.tape.prelude import Batch, Output
from memcalc.tape.tape import new, tape
from memcalc.tape.weights import LINEAR
from memcalc.timeline import Timeline

T = TypeVar("T")


class Architecture(NamedTuple):
    """What the forward, run once, told of the model: every parameter by full name, in order of registration."""

    base: dict[str, Declared]
    adapters: dict[str, Adapter]
    lookup: Lookup  # of the word embeddings
    sizes: Sizes
    targets: frozenset[str]  # full names of the adapted modules
    trained: frozenset[str]  # full names of the base parameters that train
    common: Common = Common()  # of the targets
    turns: tuple[frozenset[str], ...] = ()  # which of the trained train, step by step of a round; none: all, always
    blocks: tuple[frozenset[str], ...] = ()  # which of them BAdam's optimizer trains one at a time


def parameter_order(model: Architecture) -> list[str]:
    """Every parameter in the order of model.parameters(): a target's adapters follow all that the base has there, but
    parameters of a target that consists of modules stand before those of its modules.
    """
    leading: dict[str, list[str]] = {}
    following: dict[str, list[str]] = {}
    leaves = {name.rpartition(".")[0] for name in model.base}
    for name, adapter in model.adapters.items():
        module = adapter.module(name)
        stands = following if "." in adapter.part or module in leaves else leading
        stands.setdefault(module, []).append(name)
    order: list[str] = []
    for name, after in zip_longest(model.base, [*model.base][1:], fillvalue=""):
        module = name.rpartition(".")[0]
        order += leading.pop(module.rpartition(".")[0], ())
        order.append(name)
        while module and not after.startswith(f"{module}."):
            order += following.pop(module, ())
            module = module.rpartition(".")[0]
    placed = set(order)
    return order + [name for name in model.adapters if name not in placed]  # of a head without a weight of its own


def trained_in(model: Architecture) -> int:
    """How many parameters train: those that the method adds or copies, and the base's own that it names."""
    added = sum(prod(adapter.shape) for adapter in model.adapters.values() if adapter.trains)
    (trained,) = model.turns[-1:] or model.blocks[:1] or (model.trained,)
    return added + sum(prod(model.base[name].shape) for name in trained)


def changed_in(model: Architecture, method: Method) -> int:
    """In how many numbers the model differs from its base once it is tuned and, where that can be, merged."""
    beside: Counter[str] = Counter()
    changed = sum(prod(model.base[name].shape) for name in model.trained)
    for name, adapter in model.adapters.items():
        if adapter.of:
            changed += prod(adapter.shape)
        else:
            beside[adapter.module(name)] += prod(adapter.shape) * adapter.trains
    for module, added in beside.items():
        weight, bias = (_count(model, f"{module}.{part}") for part in ("weight", "bias"))
        changed += method.rewritten(Target(module, model.sizes.model_type, weight, bias, added)) if weight else added
    return changed


def _count(model: Architecture, name: str) -> int:
    """Numbers in a parameter of the base; 0 where it has none of that name."""
    declared = model.base.get(name)
    return 0 if declared is None else prod(declared.shape)


def linear_shapes(base: Mapping[str, Declared], names: Iterable[str]) -> list[tuple[int, int]]:
    """(d_out, d_in) of linear layers."""
    declared = [base[f"{name}.weight"] for name in names]
    shapes = [one.shape[::-1] if one.kind == "conv1d" else one.shape for one in declared]
    return [(d_out, d_in) for d_out, d_in in shapes]


_Asked = tuple[Family, Config, Method, attending.Attention]
_latest: list[tuple[_Asked, Architecture]] = []  # a sweep asks for the same model over and over


def declare(family: Family, c: Config, method: Method, attention: attending.Attention) -> Architecture:
    """What the model consists of; the latest answer is kept."""
    asked = family, c, method, attention
    if not _latest or _latest[0][0] != asked:
        _latest[:] = [(asked, _declare(*asked))]
    return _latest[0][1]


class Bare(NamedTuple):
    """The model without any method."""

    base: dict[str, Declared]
    anatomy: Anatomy
    lookup: Lookup
    sizes: Sizes


def declare_bare(family: Family, c: Config, attention: attending.Attention) -> Bare:
    """Run one layer's forward on a throw-away timeline."""
    sizes = Sizes(c.model_type, c.hidden, c.heads, c.kv_heads, c.head_dim, c.windows)
    bare = _declare_once(family, c, Builder(Method(), 1, attention, frozenset(), sizes, declaring=True))
    base = dict(_registered(bare.declared, family, c.layers, 1))
    parameters = tuple(name for name, declared in base.items() if declared.kind != "buffer")
    linears = tuple(name.removesuffix(".weight") for name, declared in base.items() if declared.kind in LINEAR)
    embedding = next(name for name, declared in base.items() if declared.kind == "embedding").removesuffix(".weight")
    layers = family.LAYERS, c.layers
    anatomy = Anatomy(c.model_type, parameters, linears, family.HEAD, *layers, embedding, bare.attends_by_interface)
    assert bare.lookup is not None, "the family looks no words up"
    return Bare(base, anatomy, bare.lookup, sizes)


def _declare(family: Family, c: Config, method: Method, attention: attending.Attention) -> Architecture:
    """The model without the method, then one layer's forward under it.

    Under a method that does not the same to all layers, all of them are run.
    """
    base, anatomy, lookup, sizes = declare_bare(family, c, attention)
    targets = method.targets(anatomy)
    common = _common([name for name in anatomy.linears if name in targets], base)
    run = 1 if method.layers_alike else c.layers
    wrapped = Builder(
        method,
        run,
        attention,
        targets,
        sizes,
        declaring=True,
        training=attention.training,
        common=common,
        lookup=lookup,
    )
    registered = _registered(_declare_once(family, c, wrapped).declared_adapters, family, c.layers, run)
    adapters = {name: one for name, one in registered if one.owner in ("", one.module(name))}
    trained, turns, blocks = method.trained(anatomy, targets), method.turns(anatomy), method.blocks(anatomy)
    return Architecture(base, adapters, lookup, sizes, targets, trained, common, turns, blocks)


def _common(targets: list[str], base: Mapping[str, Declared]) -> Common:
    if not targets:
        return Common()
    shapes = linear_shapes(base, targets)
    return Common(targets[0], max(d_out for d_out, _ in shapes), max(d_in for _, d_in in shapes), tuple(targets))


def _declare_once(family: Family, c: Config, m: Builder) -> Builder:
    tape.start(Timeline(), 0)
    run_model(m, family, c, Batch(new((1, 2), "int64", "input_ids"), tasks=new((1,), "int64", "task_ids")))
    return m


def run_model(m: Builder, family: Family, c: Config, batch: Batch) -> Output:
    """The model's forward, fed as the method feeds it."""
    return m.method.feed(m, batch, lambda fed: family.forward(m, fed, c))


def _registered(declared: Mapping[str, T], family: Family, layers: int, run: int) -> Iterator[tuple[str, T]]:
    """Names of all layers in the order in which the real modules are registered.

    The forward told of its first `run` layers: all, or the one that all others are like.
    """
    inner = [_of_layer(declared, family, index) for index in range(run)]
    for module in family.MODULES:
        if module == family.LAYERS:
            for index in range(layers):
                like = inner[index if index < run else 0]
                yield from ((f"{family.LAYERS}.{index}.{name}", value) for name, value in like)
        else:
            yield from (
                (name, value) for name, value in declared.items() if name == module or name.startswith(f"{module}.")
            )
    inside = tuple(f"{module}." for module in family.MODULES)
    yield from ((name, value) for name, value in declared.items() if not f"{name}.".startswith(inside))


def _of_layer(declared: Mapping[str, T], family: Family, index: int) -> list[tuple[str, T]]:
    """What one layer declared, by name within it; modules that a method has put in come last."""
    prefix = f"{family.LAYERS}.{index}."
    inner = {name.removeprefix(prefix): value for name, value in declared.items() if name.startswith(prefix)}
    ordered = {
        name: value for module in family.LAYER_MODULES for name, value in inner.items() if name.startswith(f"{module}.")
    }
    put_in = {name: value for name, value in inner.items() if name not in ordered}
    assert all(isinstance(value, Adapter) for value in put_in.values()), "LAYER_MODULES does not name every submodule"
    return [*ordered.items(), *put_in.items()]
