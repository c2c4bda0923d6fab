"""Everything that makes code on the meta device take the paths that it takes on a real one."""

import contextlib
import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from memcalc import kernels
from memcalc.optimizers import OPTIMIZERS
from memcalc.tracing import attention, autocast_switch, flash_library, recurrent, standins
from memcalc.tracing.on_meta import HostIsMeta
from memcalc.tracing.place import Place
from memcalc.workload import Workload

_FOREACH = "_get_foreach_kernels_supported_devices"
_FUSED = "_get_fused_kernels_supported_devices"
_ASKED_IN = ("torch.utils._foreach_utils", "torch.optim.optimizer")
_MADE_ON_DEVICE = {
    "C3A": "peft.tuners.c3a.layer.C3ALayer",
    "SUPERTUNING": "peft.tuners.supertuning.layer.SupertuningLayer",
}


@contextlib.contextmanager
def like_cpu(place: Place) -> Iterator[None]:
    """Inside a `with` block: autocast may be asked about, fused optimizers run."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(autocast_switch.installed(place))
        _patch(stack, {f"{module}.{_FUSED}": lambda: ["cuda", "cpu", "meta"] for module in _ASKED_IN})
        yield


@contextlib.contextmanager
def like_cuda(place: Place, chooser: attention.Chooser) -> Iterator[None]:
    """Inside a `with` block: as like_cpu, and CUDA's composites, attention kernels and foreach optimizers; recurrent
    layers are cuDNN's.
    """
    with like_cpu(place), contextlib.ExitStack() as stack:
        stack.enter_context(standins.installed(attention.composites(chooser)))
        _patch(stack, {"torch.nn.RNNBase.flatten_parameters": recurrent.flatten_parameters})
        _patch(stack, {f"{module}.{_FOREACH}": lambda: ["cuda", "meta"] for module in _ASKED_IN})
        yield


@contextlib.contextmanager
def libraries(pinned: str | None, workload: Workload, empty_cache: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside a `with` block: what a workload's libraries need beside it; `pinned` is sdpa's one kernel, `empty_cache`
    what is called in place of CUDA's.
    """
    with contextlib.ExitStack() as stack:
        if pinned and not kernels.takes_gqa(pinned):  # the loop's author repeats K and V before the call
            _patch(stack, {"transformers.integrations.sdpa_attention.use_gqa_in_sdpa": lambda *_: False})
        if workload.device == "cpu":  # singular vectors lie otherwise than cuSOLVER leaves them
            _patch(stack, {"torch._meta_registrations.device_hint": lambda _: "cpu"})
        if workload.quant != "none":
            stack.enter_context(_fresh_quantization_maps())
            stack.enter_context(_packed_weights_copied())
        if workload.training and OPTIMIZERS[workload.optimizer].package == "bitsandbytes":
            stack.enter_context(managed_memory())
        config = workload.method.peft_config() or {}
        peft_type = config.get("peft_type", "")
        if peft_type == "CPT":
            stack.enter_context(_like_cpt())
        if peft_type == "POLY":  # torch._dynamo sees to it in any process that imports it, as transformers does
            stack.enter_context(mock.patch("torch.distributions.Distribution._validate_args", new=False))
        if peft_type == "LORA":
            stack.enter_context(_adapters_from_weights())
        if config.get("init_lora_weights") == "loftq":
            stack.enter_context(_quantizing_to_initialize(empty_cache))
        if peft_type == "ADALORA":
            stack.enter_context(_every_rank_kept())
        if peft_type == "DELORA":
            stack.enter_context(mock.patch("peft.tuners.delora.layer.DeloraLayer.reset_delora_parameters", _with_norms))
        made_on_device = _MADE_ON_DEVICE.get(peft_type)
        if made_on_device:
            stack.enter_context(_cast_where_they_are(made_on_device))
        if peft_type == "DEFT":
            stack.enter_context(_beginning_with_the_weight(on_host=workload.device == "cpu"))
        if workload.attention == "flash":
            stack.enter_context(flash_library.standing_in())
        yield


def _patch(stack: contextlib.ExitStack, answers: dict[str, Callable[..., Any]]) -> None:
    for target, answer in answers.items():
        stack.enter_context(mock.patch(target, answer))


@contextlib.contextmanager
def _every_rank_kept() -> Iterator[None]:
    """Inside a `with` block AdaLoRA's allocation, which reads its threshold and what that masks, masks nothing.

    Source: peft 0.21, tuners/adalora/layer.py, RankAllocator.mask_to_budget.
    """
    from peft.tuners.adalora.layer import RankAllocator

    mask = RankAllocator.mask_to_budget

    def masked(self: Any, model: Any, budget: int) -> Any:
        with (
            mock.patch.object(torch.Tensor, "item", return_value=0.0),
            mock.patch.object(torch.Tensor, "tolist", lambda kept: [True] * kept.numel()),
        ):
            return mask(self, model, budget)

    with mock.patch.object(RankAllocator, "mask_to_budget", masked):
        yield


@contextlib.contextmanager
def _like_cpt() -> Iterator[None]:
    """Inside a `with` block CPT's projection knows its zeros, its parameter keeps a hook on its way to meta, and a
    number that is put where a mask is true is filled in, as no look for these places precedes it on a device.

    Rows are zero until an optimizer has stepped, and labels' always.
    Source: peft 0.21, tuners/cpt/model.py, CPTEmbedding.get_projection, set_updated_tokens;
    PyTorch 2.13, aten/src/ATen/native/TensorAdvancedIndexing.cpp, canDispatchToMaskedFill.
    """
    try:
        from peft.tuners.cpt.model import CPTEmbedding
    except ImportError:  # said in one line where the encoder is made
        yield
        return
    from torch.optim.optimizer import register_optimizer_step_post_hook

    stepped: list[bool] = []
    put = torch.Tensor.__setitem__

    def projected(self: Any) -> Any:
        if not self.delta_embedding.weight._backward_hooks:
            self.set_updated_tokens()
        with torch.no_grad():
            weights = self.delta_embedding.weight.clone().to(self.delta_embedding.weight.device)
            norms = torch.norm(weights, p=2, dim=1)
            rows = norms > 0
            rows.copy_(torch.tensor([bool(stepped and kind % 4) for kind in self.config.cpt_tokens_type_mask]))
            if torch.any(rows):
                epsilon = self.get_epsilon().to(self.delta_embedding.weight.device)
                weights[rows] *= (epsilon[rows] / norms[rows].clamp(min=epsilon[rows])).view(-1, 1)
            return weights

    def filled(self: torch.Tensor, index: Any, value: Any) -> None:
        is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        if is_mask and isinstance(value, int | float):
            self.masked_fill_(index, value)
        else:
            put(self, index, value)

    handle = register_optimizer_step_post_hook(lambda *_: stepped.append(True))
    try:
        with (
            mock.patch.object(CPTEmbedding, "get_projection", projected),
            mock.patch.object(torch.Tensor, "__setitem__", filled),
        ):
            yield
    finally:
        handle.remove()


_FROM_THE_WEIGHT = ("pissa_init", "olora_init", "loftq_init")


@contextlib.contextmanager
def _adapters_from_weights() -> Iterator[None]:
    """Inside a `with` block LoRA's initializations give adapters made on the host their values from a weight on meta,
    which set_data takes for another kind of tensor; and peft moves what is on meta nowhere, not into a dtype either.

    Source: peft 0.21, tuners/lora/layer.py, LoraLayer; tuners/tuners_utils.py, _move_adapter_to_device_of_base_layer.
    """
    try:
        from peft.tuners.lora.layer import LoraLayer
    except ImportError:  # said in one line where the adapters are made
        yield
        return
    with contextlib.ExitStack() as stack:
        for name in _FROM_THE_WEIGHT:
            if hasattr(LoraLayer, name):
                stack.enter_context(mock.patch.object(LoraLayer, name, _on_meta_first(getattr(LoraLayer, name))))
        yield


@contextlib.contextmanager
def _quantizing_to_initialize(empty_cache: Callable[[], None]) -> Iterator[None]:
    """Inside a `with` block LoftQ quantizes weights on meta, by way of the host, and empties the recorder's cache.

    peft asks whether scipy is installed, of which it makes no use.
    Source: peft 0.21, utils/loftq_utils.py, loftq_init; tuners/lora/config.py, LoraConfig.__post_init__.
    """
    from peft.tuners.lora import layer

    initialize = layer.loftq_init

    def initialized(weight: torch.Tensor, *given: Any, **options: Any) -> Any:
        from bitsandbytes.nn import Params4bit

        with HostIsMeta(), mock.patch.object(Params4bit, "to", _packed_anew):
            return initialize(weight, *given, **options)

    find = importlib.util.find_spec
    with (
        mock.patch.object(layer, "loftq_init", initialized),
        mock.patch("peft.utils.loftq_utils.clear_device_cache", empty_cache),
        mock.patch("importlib.util.find_spec", lambda name, *rest: name == "scipy" or find(name, *rest)),
    ):
        yield


def _packed_anew(self: Any, device: Any) -> Any:
    """Params4bit.to, of what came from the host: it is put on the device, and packed there."""
    given = {key: value for key, value in vars(self).items() if key != "data"}
    return type(self)(torch.empty_like(self.data), **given)._quantize("meta")


def _on_meta_first(initialize: Callable[..., None]) -> Callable[..., None]:
    def initialized(self: Any, adapter_name: str, *given: Any) -> None:
        weight = self.get_base_layer().weight
        adapters = [layers[adapter_name] for layers in (self.lora_A, self.lora_B)]
        if not weight.is_meta:
            initialize(self, adapter_name, *given)
            return
        for adapter in adapters:
            adapter.weight = torch.nn.Parameter(torch.empty(0, device="meta"))
        initialize(self, adapter_name, *given)
        for adapter in adapters:
            adapter.to(weight.dtype)

    return initialized


def _with_norms(self: Any, adapter: str, *args: Any) -> None:
    """The norms of a weight's columns, which DeLoRA takes where the weight is there: on meta it puts ones of fp32.

    Source: peft 0.21.2, tuners/delora/layer.py, DeloraLayer.reset_delora_parameters.
    """
    with torch.no_grad():
        self.delora_w_norm[adapter] = torch.norm(self.get_base_layer().weight.data, dim=0)


def _cast_where_they_are(layer: str) -> contextlib.AbstractContextManager[object]:
    """Inside a `with` block adapters that are made on the device take their base layer's dtype, which peft spares what
    is on meta.

    Source: peft 0.21.2, tuners/tuners_utils.py, BaseTunerLayer._move_adapter_to_device_of_base_layer.
    """

    def cast(self: Any, adapter_name: str, device: Any = None) -> None:
        _, dtype = self._get_base_layer_device_and_dtype(self.get_base_layer())
        for kind in self.adapter_layer_names:
            adapters = getattr(self, kind)
            if dtype.is_floating_point and adapter_name in adapters:
                adapters[adapter_name] = adapters[adapter_name].to(dtype)

    return mock.patch(f"{layer}._move_adapter_to_device_of_base_layer", cast)


@contextlib.contextmanager
def _beginning_with_the_weight(*, on_host: bool) -> Iterator[None]:
    """Inside a `with` block DEFT's R begins with what is taken from the weight: peft computes it where that is there.

    on_host: the host, where P and R are drawn, is the device; peft moves what is on meta nowhere, nor into a dtype.
    Source: peft 0.21.2, tuners/deft/layer.py, DeftLayer.reset_deft_parameters; tuners/tuners_utils.py,
    _move_adapter_to_device_of_base_layer.
    """
    try:
        from peft.tuners.deft.layer import DeftLayer
    except ImportError:  # said in one line where the adapters are made
        yield
        return
    reset = DeftLayer.reset_deft_parameters

    def reset_too(self: Any, adapter: str, *, init_weights: bool = True) -> None:
        reset(self, adapter, init_weights)
        weight = self.get_base_layer().weight.detach()
        if self.deft_para[adapter] or not init_weights or not weight.is_meta:
            return
        own = (self.deft_P, self.deft_R) if on_host else ()
        for there in own:
            there[adapter] = torch.nn.Parameter(torch.empty_like(there[adapter], device=weight.device))
        _first_values(self, adapter, weight)
        for there in own:
            there[adapter] = torch.nn.Parameter(there[adapter].detach().to(weight.dtype))

    with mock.patch.object(DeftLayer, "reset_deft_parameters", reset_too):
        yield


def _first_values(layer: Any, adapter: str, weight: torch.Tensor) -> None:
    """What DEFT's R begins with."""
    drawn = layer.deft_P[adapter].detach().to(weight.device)
    _, right = layer._project(drawn, adapter)
    exact = weight.to(torch.float32)
    first = right.transpose(0, 1) @ (exact.T if layer.fan_in_fan_out else exact)
    first = first / layer.deft_scaling[adapter]


@contextlib.contextmanager
def managed_memory(*, imported: bool = False) -> Iterator[None]:
    """Paged tensors of no memory inside a `with` block, and managers that know nothing of another run's parameters.

    imported: only where bitsandbytes is imported already.

    Source: bitsandbytes 0.50.2, functional.py, get_paged, fill, prefetch_tensor; optim/optimizer.py.
    """
    if imported and "bitsandbytes" not in sys.modules:
        yield
        return
    try:
        import bitsandbytes
    except ImportError:  # said in one line where the optimizer is made
        yield
        return
    with contextlib.ExitStack() as stack:
        for manager in (bitsandbytes.optim.GlobalOptimManager, bitsandbytes.functional.GlobalPageManager):
            stack.enter_context(mock.patch.object(manager, "_instance", None))
        name = "bitsandbytes.functional"
        nothing: Callable[..., Any] = lambda *args, **kwargs: None  # noqa: E731
        _patch(stack, {f"{name}.get_paged": _paged, f"{name}.fill": nothing, f"{name}.prefetch_tensor": nothing})
        yield


def _paged(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> torch.Tensor:
    """A tensor of the host's that takes one element's memory, whatever its shape."""
    tensor: Any = torch.empty((), dtype=dtype).expand(shape)
    tensor.is_paged, tensor.page_deviceid = True, 0
    return tensor


@contextlib.contextmanager
def _fresh_quantization_maps() -> Iterator[None]:
    """No 8-bit map inside a `with` block: bitsandbytes keeps it, so that only a process's first trace would make it."""
    try:
        import bitsandbytes.functional
    except ImportError:  # said in one line where the layers are made
        yield
        return
    with mock.patch.dict(bitsandbytes.functional.name2qmap, clear=True):
        yield


@contextlib.contextmanager
def _packed_weights_copied() -> Iterator[None]:
    """Inside a `with` block a packed weight can be copied, as a layer of DoRA does: theirs is made on the host first,
    whose tensors cannot turn into those of meta.

    Source: bitsandbytes 0.50.2, nn/modules.py, Params4bit.__deepcopy__.
    """
    try:
        from bitsandbytes.nn import Params4bit
    except ImportError:  # said in one line where the layers are made
        yield
        return

    def copied(self: Any, memo: Any) -> Any:
        state = copy.deepcopy(self.quant_state)
        given = {**vars(self), "quant_state": state}
        return Params4bit(copy.deepcopy(self.data), requires_grad=self.requires_grad, **given)

    with mock.patch.object(Params4bit, "__deepcopy__", copied):
        yield
