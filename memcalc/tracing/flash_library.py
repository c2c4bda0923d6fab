"""flash-attn's functions where the library is not installed, or cannot run: its blocks without its kernels."""

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.nn.functional import pad

from memcalc import kernels
from memcalc.tracing.flash_operators import operators
from memcalc.tracing.flash_padding import index_first_axis, pad_input, unpad_input

_UTILS = "transformers.modeling_flash_attention_utils"
_LOADED = ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_pad_fn", "_unpad_fn")  # caches of 5.x


class _Attention(torch.autograd.Function):
    """flash_attn_func's graph node. Saves: q, k, v, out (all padded), logsumexp, rng_state."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float) -> torch.Tensor:
        q, k, v, ctx.head_dim = _padded(q, k, v)
        out, lse, rng_state = operators().flash_attn(q, k, v, dropout_p)
        ctx.save_for_backward(q, k, v, out, lse, rng_state)
        return out[..., : ctx.head_dim]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *_ = ctx.saved_tensors
        grad = _pad_last(grads[0])
        gradients = operators().flash_attn_backward(grad, q, k, v)
        return *(gradient[..., : ctx.head_dim] for gradient in gradients), None


class _Packed(torch.autograd.Function):
    """flash_attn_varlen_func's graph node. Saves also the sequences' bounds."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: tuple[Any, ...], dropout_p: float
    ) -> torch.Tensor:
        q, k, v, ctx.head_dim = _padded(q, k, v)
        out, lse, rng_state = operators().flash_attn_varlen(q, k, v, dropout_p)
        ctx.save_for_backward(q, k, v, out, lse, *bounds, rng_state)
        return out[..., : ctx.head_dim]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *held = ctx.saved_tensors  # the library's names keep all of them to the end
        grad = _pad_last(grads[0])
        gradients = operators().flash_attn_varlen_backward(grad, q, k, v, held[2].numel() - 1)
        return *(gradient[..., : ctx.head_dim] for gradient in gradients), None, None


def _padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError("query, key and value must have the same dtype")
    return _pad_last(q), _pad_last(k), _pad_last(v), q.shape[-1]


def _pad_last(x: torch.Tensor) -> torch.Tensor:
    missing = kernels.flash_padded_head_dim(x.shape[-1]) - x.shape[-1]
    return pad(x, (0, missing)) if missing else x


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention over (b, s, heads, head_dim); transformers asks for these parameters by name."""
    return _Attention.apply(q, k, v, dropout_p)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> Any:
    """Attention over (tokens, heads, head_dim), sequences packed end to end."""
    return _Packed.apply(q, k, v, (cu_seqlens_q, cu_seqlens_k), dropout_p)


def _no_paged_cache(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("flash_attn_with_kvcache serves generation: no step of ours calls it")


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Let transformers find a flash_attn package inside a `with` block."""
    padding = _module("flash_attn.bert_padding", (index_first_axis, pad_input, unpad_input))
    functions = (flash_attn_func, flash_attn_varlen_func)
    package = _module("flash_attn", functions, flash_attn_with_kvcache=_no_paged_cache)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_imported({"flash_attn": package, "flash_attn.bert_padding": padding}))
        for target, value in _found_by_transformers().items():
            stack.enter_context(mock.patch(target, value))
        utils = importlib.import_module(_UTILS)
        falcon = importlib.import_module("transformers.models.falcon.modeling_falcon")
        stack.enter_context(
            mock.patch.object(falcon, "_flash_attention_forward", utils._flash_attention_forward, create=True)
        )
        if not hasattr(utils, _LOADED[0]):  # transformers 4 imports them where that file is first imported
            for function in (*functions, index_first_axis, pad_input, unpad_input):
                stack.enter_context(mock.patch.object(utils, function.__name__, function, create=True))
            stack.enter_context(mock.patch.object(utils, "_flash_supports_window_size", new=True, create=True))
        yield


@contextlib.contextmanager
def _imported(modules: dict[str, types.ModuleType]) -> Iterator[None]:
    """These modules are the imported ones inside a `with` block. Others that it imports stay imported."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _module(name: str, functions: tuple[Any, ...], **more: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # importlib.util.find_spec asks for it
    for function in functions:
        setattr(module, function.__name__, function)
    vars(module).update(more)
    return module


def _can_dispatch(model: Any, *args: Any, **kwargs: Any) -> bool:
    """transformers' question, but for what it asks of the library and of the device."""
    if not (model._supports_flash_attn or getattr(model, "_supports_flash_attn_2", False)):
        raise ValueError(f"{type(model).__name__} does not support Flash Attention 2")
    return True


def _found_by_transformers() -> dict[str, Any]:
    """Where transformers asks whether the library is there, in which version; what it has loaded already.

    Source: transformers 4.45 to 5.24, modeling_flash_attention_utils.py, modeling_utils.py, utils/import_utils.py.
    """
    questions = ("is_flash_attn_2_available", "is_flash_attn_greater_or_equal_2_10", "is_flash_attn_greater_or_equal")
    asked_in = ("transformers.utils", "transformers.utils.import_utils", "transformers.modeling_utils", _UTILS)
    found: dict[str, Any] = {}
    for module in asked_in:
        names = vars(importlib.import_module(module))
        found |= {f"{module}.{name}": lambda *args, **kwargs: True for name in questions if name in names}
    model = importlib.import_module("transformers.modeling_utils").PreTrainedModel
    if hasattr(model, "_flash_attn_can_dispatch"):
        found["transformers.modeling_utils.PreTrainedModel._flash_attn_can_dispatch"] = _can_dispatch
    return found | {f"{_UTILS}.{name}": None for name in _LOADED if hasattr(importlib.import_module(_UTILS), name)}
