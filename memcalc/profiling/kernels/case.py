"""One thing to look at: an operator, and the entry of the kernel table that speaks of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from memcalc.profiling.kernels.probe import Inside

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Op = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """`entry` is a function of memcalc.kernels, or the name of an operator of which the table says nothing."""

    entry: str
    arguments: dict[str, Any]  # of the entry's function, its gpu left out; plain JSON values
    prepare: Callable[[str], Op]  # the operator with its inputs ready on a device
    value: Callable[[Inside, Any], Any] | None = None  # what an entry gives that is no Scratch, from blocks and result
    needs: str = ""  # a package without which it cannot run


def heads(shape: tuple[int, int, int, int], dtype: str, device: str, *, inside: bool = True) -> torch.Tensor:
    """A tensor (b, heads, s, head_dim); `inside`: it lies in memory as (b, s, heads, head_dim), as models make it."""
    b, n, s, d = shape
    if inside:
        return torch.empty(b, s, n, d, dtype=DTYPES[dtype], device=device).normal_().transpose(1, 2)
    return torch.empty(b, n, s, d, dtype=DTYPES[dtype], device=device).normal_()


def device_bytes(tensor: torch.Tensor, device: str) -> int:
    """Bytes of a tensor's storage, none where it lies elsewhere."""
    return tensor.untyped_storage().nbytes() if tensor.device.type == torch.device(device).type else 0


def own_blocks(inside: Inside, _: Any) -> int:
    """Bytes of an operator's own blocks at the fullest moment: its workspace."""
    return sum((*inside.before, *inside.after))


def normal(device: str, kind: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor of random values."""
    return torch.empty(shape, dtype=kind, device=device).normal_()
