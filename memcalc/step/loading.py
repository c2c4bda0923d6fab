"""From nothing to a model on the device, block by block in the order of the real loading.

memcalc/realize/loading.py does the same with real tensors; its docstrings name the sources.
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from memcalc.errors import NotModelled
from memcalc.families import Family
from memcalc.formats import HALF, ITEMSIZE, refuse_packed_training
from memcalc.methods.base import Method
from memcalc.optimizers import Trained
from memcalc.step.declaring import Architecture, parameter_order
from memcalc.tape.builder import Builder
from memcalc.tape.declared import Adapter, Declared
from memcalc.tape.ops.eight_bit import Packed8Bit, quantize_rows
from memcalc.tape.ops.quantized import Packed4Bit, quantize
from memcalc.tape.tape import Leaf, Tensor, new, on_cuda, tape
from memcalc.tape.weights import LINEAR, PACKABLE
from memcalc.units import GIB
from memcalc.workload import Workload

PACKED_BYTES = {"nf4": 0.5, "fp4": 0.5, "int8": 1.0}  # of one weight, as the warm-up counts them


class Loaded(NamedTuple):
    """The trained parameters by full name, in order of registration; some layers may stand for more than they are."""

    trained: dict[str, Tensor]
    model: Architecture
    last_layer: str  # the path of the last one, with its dot: it stands for the layers that are not here too
    unwritten: int

    @property
    def in_measured_step(self) -> dict[str, Tensor]:
        """Those of the trained parameters that train in the measured step."""
        one_by_one = self.model.turns[-1:] or self.model.blocks[:1]
        return {name: x for name, x in self.trained.items() if not one_by_one or name in one_by_one[0]}

    def with_states(self, w: Workload) -> dict[str, Tensor]:
        """Those for which the optimizer keeps states in the end: a round gives all of them some."""
        rounds = any(item != "empty" for item in w.history)
        return self.trained if rounds else self.in_measured_step

    def times(self, name: str) -> int:
        """How many tensors of the whole model this one stands for."""
        return 1 + self.unwritten if self.unwritten and name.startswith(self.last_layer) else 1

    def groups(self, w: Workload) -> list[list[Tensor]]:
        """What the optimizer steps one after the other: the method's groups, or Trainer's two, or all as one."""
        if w.method.optimizer_maker is not None:
            shapes = {name: x.shape for name, x in self.trained.items()}
            return [[self.trained[name] for name in group] for group in w.method.groups(shapes, self._layer_norms())]
        if w.method.projected_rank is not None:
            projected = {f"{name}.weight" for name in self.model.targets}
            named = self.trained.items()
            return [[x for name, x in named if (name in projected) is group] for group in (False, True)]
        return self._decay_groups() if w.loop == "trainer" else [list(self.trained.values())]

    def _decay_groups(self) -> list[list[Tensor]]:
        """Trainer's two groups: what decays, then norms and biases, which do not.

        Source: transformers 5.24.0, trainer.py, create_optimizer, get_decay_parameter_names.
        """
        known = (self.model.base | self.model.adapters).items()
        spared = {name for name, one in known if one.kind in ("norm", "bias")}
        named = self.trained.items()
        return [[x for name, x in named if name not in spared], [x for name, x in named if name in spared]]

    def _layer_norms(self) -> frozenset[str]:
        """What trains of torch.nn.LayerNorms, or of copies of them: of all norms these alone have biases."""
        base, adapters = self.model.base, self.model.adapters
        found = (name.rpartition(".")[0] for name, one in base.items() if one.kind == "norm" and name.endswith(".bias"))
        modules = frozenset(found)
        origins = {name: adapters[name].of if name in adapters else name for name in self.trained}
        return frozenset(name for name, origin in origins.items() if origin.rpartition(".")[0] in modules)

    def seen_by_optimizer(self, w: Workload) -> dict[str, Trained]:
        """The trained parameters by full name. An 8-bit optimizer that Trainer makes spares what is an nn.Embedding's.

        Source: transformers 5.24.0, trainer.py, create_optimizer (register_module_override).
        """
        known = self.model.base | self.model.adapters
        embeddings = {name for name in self.trained if known[name].kind == "embedding"}
        of_trainer = w.loop == "trainer" and w.method.optimizer_maker is None
        return {
            name: Trained(x.shape, x.dtype, in_32_bits=of_trainer and name in embeddings)
            for name, x in self.trained.items()
        }


def load(m: Builder, model: Architecture, family: Family, w: Workload, depth: int = 0) -> Loaded:
    """Phase "load". Fills the builder's parameters and weights; `depth`: the real model's, if it is deeper."""
    timeline = tape.timeline
    timeline.phase("load")
    tape.category = "weights"
    if w.load == "device-map":
        _device_map(m, model, family, w, depth)
    else:
        for name, declared in model.base.items():
            _place(m, name, declared, declared.dtype or w.dtype)
    if w.kbit_prepare != "none":
        _raise_to_fp32(m, model)
        timeline.empty_cache()
    m.declared_adapters = model.adapters
    copies = tuple(f"{family.LAYERS}.{index}." for index in w.method.copied(m.layer_count))
    for x in (x for name, x in m.parameters.items() if name.startswith(copies)):
        x.data.settle("adapter")
    reassigned = _adapters(m, model, w)
    if w.method.positions_before and not on_cuda():  # peft numbers virtual tokens on the host, which is the device
        m.parameters["prompt_tokens"] = Tensor(new((w.method.positions_before,), "int64", "arange", "adapter"))
    if w.kbit_prepare == "trl":
        _cast_back(m, model, family)
    tape.category = "activations"
    trained = _mark_trained(m, model, w, reassigned)
    if w.merged:
        model = _merge(m, model, w, trained)
    link(m, model)
    timeline.phase_end()
    return Loaded(trained, model, f"{family.LAYERS}.{m.layer_count - 1}.", max(0, depth - m.layer_count))


def _place(m: Builder, name: str, declared: Declared, dtype: str) -> None:
    tape.scope = name.rpartition(".")[0]
    m.parameters[name] = Tensor(new(declared.shape, dtype, name.rpartition(".")[2]))


def _device_map(m: Builder, model: Architecture, family: Family, w: Workload, depth: int) -> None:
    """from_pretrained(device_map=…): a warm-up block, then weights by name, then buffers that no file holds."""
    parameters = [name for name, declared in model.base.items() if declared.kind != "buffer"]
    kept = {f"{family.HEAD}.weight", parameters[-1]}  # transformers 5.24.0, quantizers/base.py, get_keys_to_not_convert
    packed = {
        name
        for name, declared in model.base.items()
        if declared.kind in PACKABLE and name not in kept and w.quant in PACKED_BYTES
    }
    last, unwritten = f"{family.LAYERS}.{m.layer_count - 1}.", max(0, depth - m.layer_count)
    in_last = [name for name in parameters if name.startswith(last)]
    _warm_up(model, parameters + in_last * unwritten, packed, w)
    first = True
    for name in sorted(parameters, key=_natural):
        declared = model.base[name]
        if name in packed:
            tape.scope = name.rpartition(".")[0]
            transposed = declared.kind == "conv1d"
            d_out, d_in = declared.shape[::-1] if transposed else declared.shape
            if w.quant == "int8":
                m.weights[tape.scope] = Packed8Bit(d_out, d_in, *quantize_rows((d_out, d_in), w.dtype))
                continue
            codes, state = quantize(
                (d_out, d_in), double_quant=w.double_quant, first=first, from_dtype=w.dtype, transposed=transposed
            )
            m.weights[tape.scope] = Packed4Bit(d_out, d_in, w.dtype, w.double_quant, w.gpu, codes, state)
            first = False
        else:
            _place(m, name, declared, w.dtype)
    for name, declared in model.base.items():
        if declared.kind == "buffer":
            _place(m, name, declared, declared.dtype or w.dtype)


def _warm_up(model: Architecture, parameters: list[str], packed: set[str], w: Workload) -> None:
    """One block of the weights' size, freed at once: a segment that the weights are cut from.

    Source: transformers 5.24.0, modeling_utils.py, caching_allocator_warmup, which leaves 1.2 GiB of the card.
    """
    nbytes = sum(
        prod(model.base[name].shape) * (PACKED_BYTES[w.quant] if name in packed else ITEMSIZE[w.dtype])
        for name in parameters
    )
    nbytes = min(nbytes, w.gpu.memory_bytes - 1.2 * GIB)
    tape.scope = ""
    new((int(nbytes // 2),), "fp16", "warm-up")


def _natural(name: str) -> list[tuple[int, int | str, int]]:
    """dot_natural_key: parts of a name that are numbers sort as numbers, and numbers behind a word too."""
    key: list[tuple[int, int | str, int]] = []
    for part in name.split("."):
        if part.isdigit():
            key.append((0, int(part), 0))
        else:
            word = part.rstrip("0123456789")
            key.append((1, word, int(part[len(word) :] or -1)))
    return key


def _raise_to_fp32(m: Builder, model: Architecture) -> None:
    """prepare_model_for_kbit_training: every half-precision parameter that is not packed, one by one.

    Source: peft 0.21.2, utils/other.py.
    """
    for name, declared in model.base.items():
        old = m.parameters.get(name)
        if old is not None and declared.kind != "buffer" and old.dtype in HALF:
            _place(m, name, declared, "fp32")
        del old


def _cast_back(m: Builder, model: Architecture, family: Family) -> None:
    """TRL's peft_module_casting_to_bf16: the head and the embedding, where the embedding goes by one of its names,
    with the adapters that they have.
    """
    tied_to = next(name for name, declared in model.base.items() if declared.kind == "embedding")
    for name in parameter_order(model):
        added = model.adapters.get(name)
        module = name.rpartition(".")[0] if added is None else added.module(name)
        known = any(part in name for part in ("embed_tokens", "wte", "wpe")) or module == family.HEAD
        tied_head = name == tied_to and f"{family.HEAD}.weight" not in model.base
        if (known or tied_head) and m.parameters[name].dtype == "fp32":
            if added is None:
                _place(m, name, model.base[name], "bf16")
            else:
                _add(m, name, added, "bf16")


def _adapters(m: Builder, model: Architecture, w: Workload) -> frozenset[str]:
    """peft creates every adapter in its base weight's dtype, copies what is to be copied as it is, then raises half
    adapters to fp32, one by one, but no copies. Answers those that it reassigns as new parameters, which train again:
    a dict of parameters has no modules between that would keep the flag.

    Source: peft 0.21.2, tuners/tuners_utils.py, _move_adapter_to_device_of_base_layer, inject_adapter,
    cast_adapter_dtype; tuners/ln_tuning/model.py, _cast_adapter_dtype; utils/other.py, ModulesToSaveWrapper.update.
    """
    added = {name: adapter for name, adapter in model.adapters.items() if not adapter.of}
    early = {name: adapter for name, adapter in added.items() if not adapter.late}
    _make(m, early, w)
    w.method.finish(m, list(dict.fromkeys(adapter.module(name) for name, adapter in early.items())))
    for name, adapter in model.adapters.items():
        if adapter.of:
            if adapter.of not in m.parameters:
                raise NotModelled(f"estimate does not write a copy of the packed {adapter.of}: memcalc trace runs it")
            _add(m, name, adapter, m.parameters[adapter.of].dtype)
    raised = w.autocast_adapter_dtype and not w.method.keeps_dtype
    reassigned = _raise_adapters(m, added) if raised else frozenset()
    _make(m, {name: adapter._replace(dtype="fp32") for name, adapter in added.items() if adapter.late}, w)
    return reassigned


def _raise_adapters(m: Builder, added: Mapping[str, Adapter]) -> frozenset[str]:
    """cast_adapter_dtype: half adapters become fp32, one by one; what stood in a dict is a new parameter then. Buffers
    of a module stay as they are.

    A loop over one module's parameters holds them all until it ends, and the last one until the next loop.
    """
    reassigned: set[str] = set()
    held: list[Tensor] = []
    looped = before = holder = ""
    for name, adapter in added.items():
        owner = adapter.module(name)
        if owner != before != holder:  # a module that shares what is held has looped over it again
            held.clear()
        before = owner
        if adapter.late or m.parameters[name].dtype not in HALF:
            continue
        module = "" if adapter.part.endswith(".default") else name.rpartition(".")[0]
        if module and adapter.kind == "buffer":
            continue
        if module != looped:
            del held[:-1]
        if module and module != looped:
            held.clear()
        looped = module
        if module:
            holder = owner
            held.append(m.parameters[name])
        else:
            reassigned.add(name)
        _add(m, name, adapter, "fp32")
    return frozenset(reassigned)


def _make(m: Builder, added: Mapping[str, Adapter], w: Workload) -> None:
    """Adapters in their base weight's dtype, module by module; what is shared may be made anew with each."""
    remade = {name: adapter for name, adapter in added.items() if adapter.remade}
    modules: dict[str, dict[str, Adapter]] = {}
    for name, adapter in added.items():
        modules.setdefault(adapter.module(name), dict(remade))[name] = adapter
    for module, adapters in modules.items():
        for name in remade:
            m.parameters.pop(name, None)
        waiting = dict(sorted(adapters.items(), key=lambda item: item[0] in remade))
        dtype = _made_in(m, module, w)
        frozen, raised = w.kbit_prepare != "none", w.autocast_adapter_dtype
        for part in w.method.making(m, module, frozen=frozen, raised=raised):
            for name in [f"{module}.{part}"] if part else list(waiting):
                adapter = waiting.pop(name)
                if adapter.on_device and dtype != "fp32":
                    _add(m, name, adapter, "fp32")
                _add(m, name, adapter, adapter.dtype or dtype)


def _made_in(m: Builder, module: str, w: Workload) -> str:
    """The dtype of a module's weight; over a packed one, which is no parameter, the compute dtype."""
    ours = w.method.peft_config() is None or w.method.graft() is not None
    if ours and w.autocast_adapter_dtype and not w.method.keeps_dtype:  # our own modules are made as they stay
        return "fp32"
    if not ours and w.method.keeps_dtype and any(name.startswith(f"{module}.") for name in m.weights):
        return "fp32"
    base = m.parameters.get(f"{module}.weight")
    if base is not None:
        return base.dtype
    # peft knows a packed layer's compute dtype by nf4's and fp4's alone
    return "fp32" if w.quant == "int8" and not ours else w.dtype


def _add(m: Builder, name: str, adapter: Adapter, dtype: str) -> None:
    tape.scope = adapter.module(name)
    m.parameters[name] = Tensor(new(adapter.shape, dtype, adapter.part, "adapter"))


def _mark_trained(m: Builder, model: Architecture, w: Workload, reassigned: frozenset[str]) -> dict[str, Tensor]:
    """Give what trains a leaf of the graph; buffers never train, nor most adapters that were loaded to be used only.

    Source: peft 0.21.2, tuners/tuners_utils.py, inject_adapter (inference_mode).
    """
    trained: dict[str, Tensor] = {}
    for name in parameter_order(model):
        adapter = model.adapters.get(name)
        if adapter is None:
            trains = name in model.trained
        else:
            flagged = w.training or name in reassigned or not w.method.frozen_in_use
            trains = flagged and adapter.trains
        if not trains:
            continue
        if name not in m.parameters:
            if adapter is None and w.method.adds:
                refuse_packed_training(name)
            continue
        old = m.parameters[name]
        tape.scope = name.rpartition(".")[0]
        trained[name] = m.parameters[name] = Tensor(old.data, Leaf(old.data, "gradients"))
    return trained


def _merge(m: Builder, model: Architecture, w: Workload, trained: dict[str, Tensor]) -> Architecture:
    """merge_and_unload, module by module: what is left is the base model, and no method acts on it any more.

    A module's adapters are dropped from what trains, too.

    Source: peft 0.21.2, tuners/tuners_utils.py, _unload_and_optionally_merge.
    """
    if w.quant != "none":
        raise NotModelled(f"estimate does not write --merged into --quant {w.quant}: memcalc profile measures it")
    outer, tape.category, tape.grad = tape.category, "adapter", False
    modules: dict[str, list[str]] = {}
    for name in parameter_order(model):
        if name in model.adapters:
            modules.setdefault(model.adapters[name].module(name), []).append(name)
    for module, names in modules.items():
        tape.scope = module
        w.method.merge(m, module)
        for name in names:
            del m.parameters[name]
            trained.pop(name, None)
    tape.category, tape.grad = outer, True
    m.method, m.targets = Method(), frozenset()
    return model._replace(adapters={}, targets=frozenset())


def link(m: Builder, model: Architecture) -> None:
    """Linear layers find their weight and bias, or those of their copy, by the module's name."""
    for name, declared in model.base.items():
        made = LINEAR.get(declared.kind)
        if made is None:
            continue
        module = name.removesuffix(".weight")
        bias = m.parameters.get(f"{module}.bias")
        packed = m.weights.get(module)
        if packed is not None and packed.packed:
            packed.bias = bias
        else:
            m.weights[module] = made(m.parameters[name], bias)
    for name, adapter in model.adapters.items():
        made = LINEAR.get(adapter.kind or "")
        if made is not None and adapter.of:
            copied_bias = m.parameters.get(f"{name.removesuffix('.weight')}.bias")
            m.weights[adapter.module(name)] = made(m.parameters[name], copied_bias)
