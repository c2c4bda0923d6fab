"""Operators on matrices that are stored by their entries."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from itertools import product

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal

aten = torch.ops.aten

_ROWS, _COLUMNS, _ENTRIES = 2048, 1024, 50_000


def cases() -> Iterator[Case]:
    """All of them."""
    for dtype, values in product(("bf16", "fp32"), repeat=2):

        def add(device: str, dtype: str = dtype, values: str = values) -> Op:
            dense, sparse = normal(device, DTYPES[dtype], _ROWS, _COLUMNS), _by_entries(device, DTYPES[values])
            return lambda: aten.add_.Tensor(dense, sparse)

        common = "bf16" if dtype == values == "bf16" else "fp32"
        arguments = {"numel": _ROWS * _COLUMNS, "entries": _ENTRIES, "dtype": dtype, "values": values, "common": common}
        yield Case("sparse_add_scratch", arguments, add)
    for dtype in ("bf16", "fp32"):

        def mask(device: str, kind: torch.dtype = DTYPES[dtype]) -> Op:
            dense, sparse = normal(device, kind, _ROWS, _COLUMNS), _by_entries(device, kind)
            return lambda: _parts(aten.sparse_mask.default(dense, sparse))

        yield Case("sparse_mask_scratch", {"entries": _ENTRIES, "dtype": dtype}, mask)


def _parts(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return matrix._indices(), matrix._values()


def _by_entries(device: str, kind: torch.dtype) -> torch.Tensor:
    places = torch.arange(_ENTRIES, device=device).mul(7).remainder(_ROWS * _COLUMNS)
    both = torch.stack((places // _COLUMNS, places % _COLUMNS))
    return torch.sparse_coo_tensor(both, normal(device, kind, _ENTRIES), (_ROWS, _COLUMNS), check_invariants=False)
