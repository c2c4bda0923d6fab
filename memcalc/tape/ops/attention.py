"""Fused attention kernels: q, k, v (b, heads, s, d) -> (b, heads, s, d).

What each keeps for backward and allocates inside is in kernels.py, for both tiers.
Source of the saved tensors: PyTorch 2.13, tools/autograd/derivatives.yaml, _scaled_dot_product_*_attention.
"""

from collections.abc import Sequence
from typing import Protocol

from memcalc import kernels
from memcalc.kernels import Gpu, Scratch
from memcalc.tape.autocast import lower
from memcalc.tape.tape import Array, Storage, Tensor, contiguous_strides, like, new, record, save, scratch, wants


class Chooser(Protocol):
    """What decides sdpa's kernel beside the tensors themselves."""

    @property
    def gpu(self) -> Gpu: ...
    @property
    def pinned(self) -> str | None: ...
    @property
    def dropout(self) -> float: ...
    @property
    def training(self) -> bool: ...


def sdpa(run: Chooser, q: Tensor, k: Tensor, v: Tensor, mask: Array | None) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, by the kernel that CUDA would take."""
    q, k, v = lower(q), lower(k), lower(v)
    kernel = kernels.sdpa_kernel(
        run.gpu,
        dtype=q.dtype,
        training=wants(q) or wants(k) or wants(v),
        q_len=q.shape[2],
        k_len=k.shape[2],
        head_dim=q.shape[3],
        heads=q.shape[1],
        kv_heads=k.shape[1],
        masked=mask is not None,
        causal=mask is None and q.shape[2] > 1,
        pinned=run.pinned,
    )
    dropout = run.training and run.dropout > 0
    if kernel == "flash":
        return flash(q, k, v, dropout=dropout)
    raise NotImplementedError(kernel)


def flash(q: Tensor, k: Tensor, v: Tensor, *, dropout: bool) -> Tensor:
    """PyTorch's own flash kernel; k and v may have fewer heads.

    Allocates: out in q's layout, logsumexp fp32 (b, heads, s), two seeds.
    Saves: q, k, v, out, logsumexp, seeds. Backward allocates: the gradients, each in its input's layout.
    """
    b, heads, s, d = q.shape
    inputs = [q, k, v]
    kept = [save(x.data) for x in inputs] if any(wants(x) for x in inputs) else []
    out = like(q.data, "flash")
    lse = new(kernels.flash_lse_shape(b, heads, s), "fp32", "flash")
    seeds = [Array(Storage(n, "flash"), (n,), (1,), "uint8") for n in kernels.flash_seed_bytes(dropout=dropout)]
    if kept:
        kept += [save(x) for x in (out, lse, *seeds)]
    inner = kernels.flash_backward_scratch(
        batch=b, q_len=s, k_len=k.shape[2], heads=heads, kv_heads=k.shape[1], head_dim=d, dtype=q.dtype
    )
    return _record(out, inputs, kept, inner, "flash")


def _record(out: Array, inputs: Sequence[Tensor], kept: list[object], inner: Scratch, op: str) -> Tensor:
    def backward(g: Array) -> list[Array | None]:
        held = [saved.get() for saved in kept]
        before = scratch(inner.before, f"{op}_backward")
        gradients = [like(x, f"{op}_backward") for x in held[:3]]
        after = scratch(inner.after, f"{op}_backward")
        del held, before, after
        return gradients

    return record(out, inputs, backward)
