"""What operators do on CUDA and not on meta.

Composites that ask "is this a CUDA tensor?" are given a kernel at AutogradMeta that answers as if it were
(COMPOSITES); kernels that allocate blocks for themselves get these noted (`table`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch
from memcalc.tracing import recurrent
from memcalc.tracing.attention_math import safe_softmax_scratch
from memcalc.tracing.attention_scratch import DTYPE_NAMES, attention_scratch
from memcalc.tracing.flash_operators import flash_attn_scratch

aten = torch.ops.aten

NOTHING = Scratch()


def softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    """On CUDA half input and fp32 output are one kernel (aten/src/ATen/native/SoftMax.cpp, softmax)."""
    if x.dtype == torch.float16 and dtype == torch.float32:
        return aten._softmax.default(x, dim, True)
    return aten._softmax.default(x if dtype is None else x.to(dtype), dim, False)


def log_softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    """As softmax (aten/src/ATen/native/SoftMax.cpp, log_softmax)."""
    if x.dtype == torch.float16 and dtype == torch.float32:
        return aten._log_softmax.default(x, dim, True)
    return aten._log_softmax.default(x if dtype is None else x.to(dtype), dim, False)


def dropout(x: torch.Tensor, p: float, train: bool) -> Any:
    """On CUDA the fused kernel with its boolean mask (aten/src/ATen/native/Dropout.cpp, is_fused_kernel_acceptable)."""
    if train and 0 < p < 1 and x.numel() > 0:
        return aten.native_dropout.default(x, p, train)[0]
    if p == 0 or not train or x.numel() == 0:
        return x
    return x.mul(torch.zeros((), dtype=x.dtype, device=x.device))


COMPOSITES: dict[Any, Callable[..., Any]] = {}  # those that are installed
_OURS: dict[Any, Callable[..., Any]] = {
    aten.softmax.int: softmax,
    aten.log_softmax.int: log_softmax,
    aten.dropout.default: dropout,
    **recurrent.composites(),
}


@contextmanager
def installed(more: dict[Any, Callable[..., Any]]) -> Iterator[None]:
    """Answer ours and these composites for meta tensors inside a `with` block, above autograd and in inference mode."""
    library = torch.library.Library("aten", "IMPL")
    COMPOSITES.update(_OURS | more)
    for op, kernel in COMPOSITES.items():
        library.impl(op, kernel, "AutogradMeta")
    try:
        yield
    finally:
        COMPOSITES.clear()
        library._destroy()


def _no_scratch(*args: Any, **kwargs: Any) -> Scratch:
    return NOTHING


@dataclass(frozen=True)
class StandIn:
    """A kernel of CUDA's: the blocks it allocates for itself, and what to run on meta if not the op itself."""

    scratch: Callable[..., Scratch] = _no_scratch
    run: Callable[..., Any] | None = None
    opened: Callable[..., Any] | None = None  # the op as other ops, each seen by itself
    multiplies: bool = False  # it calls cuBLAS where its scratch is not empty
    last_output_first: bool = False  # the order in which its outputs are allocated
    followed: bool = False  # the values of small tensors follow as from the op itself, whatever is run


def table(gpu: Gpu | None) -> dict[Any, StandIn]:
    """Stand-ins by operator; with `gpu` None only those without which meta cannot run."""
    found = {
        aten.dropout.default: StandIn(opened=_dropout_at_rest),
        aten.native_dropout.default: StandIn(run=_native_dropout),
        aten.native_dropout_backward.default: StandIn(run=_native_dropout_backward),
        aten._amp_foreach_non_finite_check_and_unscale_.default: StandIn(run=_in_place),
        aten._amp_update_scale_.default: StandIn(run=_amp_update_scale),
        aten.add_.Tensor: StandIn(run=_add_in_place, followed=True),
        aten.sparse_mask.default: StandIn(run=_sparse_mask),
        aten.randperm.generator: StandIn(run=_in_order),
    }
    if gpu is None:
        found[aten.native_layer_norm.default] = StandIn(run=_layer_norm_on_cpu)
    else:
        found[aten.add_.Tensor] = StandIn(_sparse_add, run=_add_in_place, followed=True)
        found[aten.sparse_mask.default] = StandIn(_sparse_mask_inside, run=_sparse_mask)
        found[aten._softmax_backward_data.default] = StandIn(_softmax_backward)
        found[aten.embedding_dense_backward.default] = StandIn(_embedding_backward)
        found[aten.bmm.default] = StandIn(_bmm)
        found[aten.baddbmm.default] = StandIn(_baddbmm)
        found[aten._foreach_norm.Scalar] = StandIn(_foreach_norm)
        found[aten.roll.default] = StandIn(_roll)
        found[aten.topk.default] = StandIn(partial(_topk, gpu))
        found[aten.sort.default] = StandIn(_sort)
        found[aten._safe_softmax.default] = StandIn(safe_softmax_scratch)
        found[aten._scaled_dot_product_cudnn_attention.default] = StandIn(run=_cudnn_attention)
        found[aten._cudnn_rnn.default] = StandIn(opened=recurrent.forward)
        found[aten._cudnn_rnn_backward.default] = StandIn(opened=recurrent.backward)
        for scratches in (attention_scratch(gpu), flash_attn_scratch(gpu)):
            found.update({op: StandIn(scratch) for op, scratch in scratches.items()})
        if hasattr(torch.ops.bitsandbytes, "gemm_4bit"):
            found.update(_bitsandbytes(gpu))
    return found


def _bitsandbytes(gpu: Gpu) -> dict[Any, StandIn]:
    """Source: bitsandbytes 0.50.2, backends/cuda/ops.py."""
    from memcalc.tracing import bitsandbytes_operators as bnb

    ops = torch.ops.bitsandbytes
    return {
        ops.gemm_4bit.default: StandIn(bnb.gemm_4bit(gpu), multiplies=True),
        ops.quantize_4bit.default: StandIn(last_output_first=True),
        ops.quantize_blockwise.default: StandIn(last_output_first=True),
        ops.int8_mixed_scaled_mm.default: StandIn(opened=bnb.int8_mixed_product),
        ops.int8_scaled_mm.default: StandIn(opened=bnb.int8_product),
        ops.int8_vectorwise_quant.default: StandIn(bnb.int8_rows_scratch, run=bnb.int8_rows, last_output_first=True),
        ops.int8_vectorwise_dequant.default: StandIn(opened=bnb.int8_dequantized),
        ops.int8_mm_dequant.default: StandIn(bnb.int8_dequant_scratch),
    }


def _dropout_at_rest(x: torch.Tensor, p: float, train: bool) -> Any:
    """Seen in inference mode alone, where torch's decomposition in Python makes a copy that its kernel does not."""
    return x if p == 0 or not train else aten.dropout.default.decompose(x, p, train)


def _native_dropout(x: torch.Tensor, p: float, train: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _native_dropout_backward(grad: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.empty_like(grad)


def _cudnn_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: Any, lse: bool, *args: Any, **kw: Any
) -> Any:
    """meta makes a logsumexp always, CUDA where backward follows (aten/src/ATen/native/cudnn/MHA.cpp)."""
    out, logsumexp, *rest = aten._scaled_dot_product_cudnn_attention.default(q, k, v, bias, lse, *args, **kw)
    return out, logsumexp if lse else logsumexp.new_empty(0), *rest


def _layer_norm_on_cpu(x: torch.Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Any:
    """meta's statistics are CUDA's; the CPU keeps x's dtype where weight and bias have it too.

    Source: aten/src/ATen/native/layer_norm.cpp, layer_norm_cpu; cpu/mixed_data_type.h, param_scalar_type.
    """
    out, mean, rstd = aten.native_layer_norm.default(x, shape, weight, bias, eps)
    if all(one is None or one.dtype == x.dtype for one in (weight, bias)):
        mean, rstd = (torch.empty_like(one, dtype=x.dtype) for one in (mean, rstd))
    return out, mean, rstd


def _in_place(*args: Any) -> None:
    """Changes its arguments, allocates nothing; has no meta kernel."""


def _amp_update_scale(scale: torch.Tensor, *args: Any) -> torch.Tensor:
    return scale


def _in_order(n: int, *, generator: Any = None, **options: Any) -> torch.Tensor:
    """A permutation: which one decides no memory, and drawing one of a weight's entries takes seconds."""
    return torch.arange(n, **options)


def _add_in_place(x: torch.Tensor, other: Any, **alpha: Any) -> torch.Tensor:
    """A matrix by entries is added without a look at where they stand, which no tensor on meta can say."""
    if _is_by_entries(other) and not _is_by_entries(x):
        return x
    out: torch.Tensor = aten.add_.Tensor(x, other, **alpha)
    return out


def _is_by_entries(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_sparse


def _sparse_add(x: torch.Tensor, other: Any, **alpha: Any) -> Scratch:
    if not _is_by_entries(other) or _is_by_entries(x):
        return NOTHING
    return kernels.sparse_add_scratch(
        numel=x.numel(),
        entries=other._nnz(),
        dtype=DTYPE_NAMES[x.dtype],
        values=DTYPE_NAMES[other.dtype],
        common=DTYPE_NAMES[torch.promote_types(x.dtype, other.dtype)],
    )


def _sparse_mask(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Of a dense gradient, at the places of a matrix by entries; has no meta kernel."""
    places, values = torch.empty_like(mask._indices()), torch.empty_like(mask._values(), dtype=x.dtype)
    return torch.sparse_coo_tensor(places, values, mask.shape, check_invariants=False)


def _sparse_mask_inside(x: torch.Tensor, mask: torch.Tensor) -> Scratch:
    return kernels.sparse_mask_scratch(entries=mask._nnz(), dtype=DTYPE_NAMES[x.dtype])


def _bmm(left: torch.Tensor, right: torch.Tensor) -> Scratch:
    layouts = [(factor.shape, factor.stride()) for factor in (left, right)]
    return kernels.bmm_scratch(layouts[0], layouts[1], left.element_size())


def _baddbmm(base: torch.Tensor, left: torch.Tensor, right: torch.Tensor, **factors: Any) -> Scratch:
    return _bmm(left, right)


def _softmax_backward(grad: torch.Tensor, output: torch.Tensor, dim: int, input_dtype: torch.dtype) -> Scratch:
    return kernels.softmax_backward_scratch(grad.numel() * grad.element_size())


def _embedding_backward(grad: torch.Tensor, indices: torch.Tensor, rows: int, *args: Any) -> Scratch:
    return kernels.embedding_backward_scratch(
        tokens=indices.numel(),
        rows=rows,
        width=grad.shape[-1],
        dtype=DTYPE_NAMES[grad.dtype],
        grad_copied=not grad.is_contiguous(),
    )


def _roll(x: torch.Tensor, shifts: list[int], dims: list[int] | tuple[int, ...] = ()) -> Scratch:
    """Along several dims it is a roll along one after the other."""
    copied = len(dims) == 1 and not x.is_contiguous()
    return kernels.roll_scratch(x.numel() * x.element_size(), copied=copied)


def _topk(gpu: Gpu, x: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sort: bool = True) -> Scratch:
    """Of rows, unsorted; what else there is stays without blocks of its own."""
    if x.dim() != 2 or dim not in (-1, 1) or sort or x.dtype not in DTYPE_NAMES:
        return NOTHING
    rows, length = x.shape
    return kernels.topk_scratch(rows=rows, length=length, dtype=DTYPE_NAMES[x.dtype], gpu=gpu)


def _sort(x: torch.Tensor, dim: int = -1, descending: bool = False) -> Scratch:
    """Of rows of int64; what else there is stays without blocks of its own."""
    if x.dim() != 2 or dim not in (-1, 1) or x.dtype != torch.int64:
        return NOTHING
    rows, length = x.shape
    return kernels.sort_scratch(rows=rows, length=length)


def _foreach_norm(tensors: list[torch.Tensor], *args: Any, **kwargs: Any) -> Scratch:
    return kernels.foreach_norm_scratch([tensor.numel() for tensor in tensors])
