"""What is seen only once in a process: the first products, the addresses of new segments."""

from collections.abc import Iterator
from typing import Any

import torch

from memcalc.profiling.card import Card
from memcalc.profiling.facts import Unmeasurable
from memcalc.profiling.kernels.probe import Probe

_SEGMENTS = 6
_SEGMENT_BYTES = 32 * 2**20  # above 10 MiB each block gets a segment of its own


def facts(probe: Probe, device: str, card: Card) -> Iterator[dict[str, Any]]:
    """A record's own part each, in the order in which they must be looked at."""
    yield context("cuda_context_when_empty", card)
    yield from _workspaces(probe, device)
    yield context("cuda_context", card)
    yield _fact("segments_descend", _descending(device))


def context(entry: str, card: Card) -> dict[str, Any]:
    """What the process takes on the card beside torch's allocator, now: it grows with the kernels that are loaded."""
    try:
        return _fact(entry, card.outside_allocator())
    except Unmeasurable as refusal:
        return {"entry": entry, "arguments": {}, "refused": str(refusal)}


def _fact(entry: str, value: Any) -> dict[str, Any]:
    return {"entry": entry, "arguments": {}, "measured": {"value": value}}


def _workspaces(probe: Probe, device: str) -> Iterator[dict[str, Any]]:
    """One at the caller's first product, one at the first of autograd's thread."""
    x, weight = torch.ones(64, 64, device=device), torch.ones(64, 64, device=device, requires_grad=True)
    inside, product = probe.inside(lambda: torch.mm(x, weight), warm=False)
    yield _fact("cublas_workspace", sum(inside.kept))
    yield _fact("cublas_workspace_after_output", inside.births[-1:] == inside.kept)
    grad = torch.ones_like(product)
    inside, _ = probe.inside(lambda: torch.autograd.grad(product, weight, grad), warm=False)
    yield _fact("cublas_workspace_of_autograd", sum(inside.kept))
    half = [torch.ones(shape, device=device, dtype=torch.float16) for shape in ((64,), (64, 64), (64, 64))]
    inside, _ = probe.inside(lambda: torch.addmm(*half), warm=False)  # with a bias: cublasLt
    yield _fact("cublaslt_workspace_of_its_own", sum(inside.kept))


def _descending(device: str) -> bool | None:
    """Whether each new segment lies below the one before; None where they come in no order."""
    blocks = [torch.empty(_SEGMENT_BYTES, dtype=torch.uint8, device=device) for _ in range(_SEGMENTS)]
    addresses = [block.data_ptr() for block in blocks]
    if addresses == sorted(addresses):
        return False
    return True if addresses == sorted(addresses, reverse=True) else None
