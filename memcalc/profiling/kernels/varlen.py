"""flash attention over rows packed end to end, and the flash-attn library's own."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op

aten = torch.ops.aten

PACKED = (([100, 300, 624], 16, 16, 64), ([2048, 2048], 32, 8, 128))
LIBRARY = ((2, 16, 16, 684, 64), (1, 32, 8, 2048, 128))


def cases() -> Iterator[Case]:
    """All of them."""
    for lengths, n, kv, d in PACKED:
        arguments = {
            "batch": len(lengths),
            "total_q": sum(lengths),
            "total_k": sum(lengths),
            "heads": n,
            "kv_heads": kv,
            "head_dim": d,
            "dtype": "fp16",
        }

        def prepare(device: str, shape: Any = (lengths, n, kv, d)) -> Op:
            return _packed(device, *shape)

        yield Case("flash_varlen_backward_scratch", arguments, prepare)
    for b, n, kv, s, d in LIBRARY:
        arguments = {"batch": b, "q_len": s, "k_len": s, "heads": n, "kv_heads": kv, "head_dim": d, "dtype": "fp16"}

        def prepare_library(device: str, shape: Any = (b, n, kv, s, d)) -> Op:
            return _library(device, *shape)

        yield Case("flash_library_backward_scratch", arguments, prepare_library, needs="flash_attn")


def _packed(device: str, lengths: list[int], n: int, kv: int, d: int) -> Op:
    total, longest = sum(lengths), max(lengths)
    q, k, v = (torch.empty(total, count, d, dtype=DTYPES["fp16"], device=device).normal_() for count in (n, kv, kv))
    ends = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    out, lse, seed, unused, _ = aten._flash_attention_forward.default(
        q, k, v, ends, ends, longest, longest, 0.0, True, False
    )
    grad = torch.empty_like(out).normal_()
    return lambda: aten._flash_attention_backward.default(
        grad, q, k, v, out, lse, ends, ends, longest, longest, 0.0, True, seed, unused
    )


def _library(device: str, b: int, n: int, kv: int, s: int, d: int) -> Op:
    from flash_attn import flash_attn_func

    shapes = ((b, s, count, d) for count in (n, kv, kv))
    q, k, v = (torch.empty(shape, dtype=DTYPES["fp16"], device=device).normal_().requires_grad_() for shape in shapes)
    out = flash_attn_func(q, k, v, causal=True)
    grad = torch.empty_like(out).normal_()
    return lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)
