"""Decompositions and linear systems: what cuSOLVER and cuBLAS work in, which the table leaves out, for it to be
learned; how singular vectors lie.
"""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from typing import Any

import torch

from memcalc.profiling.kernels.case import Case, Op, normal, own_blocks
from memcalc.profiling.kernels.probe import Inside

aten = torch.ops.aten

LEFT_OUT = (
    "cusolver_svd_workspace",
    "cusolver_qr_workspace",
    "cusolver_solve_workspace",
    "cusolver_solve_backward_workspace",
    "cublas_triangular_workspace",
)

_FIRST = 8  # singular vectors that are wanted
_WEIGHTS = ((512, 512), (2048, 512), (512, 2048), (1024, 1024), (2048, 2048))  # larger ones take a GPU many seconds
_LOW_RANK = ((16, 2048), (2048, 16), (128, 2048), (2048, 128))
_SMALL = ((64, 128), (128, 64), (256, 256))
_BASES = (*((rows, rank) for rows in (512, 2048, 8192) for rank in (8, 16, 128)), (128_256, 16))
_SYSTEMS = (
    *((32, 32), (128, 128), (512, 512)),  # PSOFT's
    *((1, 32, 32), (64, 32, 32), (512, 4, 4), (8, 256, 256), (4, 512, 512)),  # BOFT's, and those of OFT
)


def cases() -> Iterator[Case]:
    """All of them."""
    for entry, shapes, value in (
        ("cusolver_svd_workspace", (*_WEIGHTS, *_LOW_RANK), own_blocks),
        ("singular_vectors_lie_by_rows", _SMALL, _first_are_a_view),
    ):
        for rows, columns in shapes:

            def svd(device: str, shape: tuple[int, int] = (rows, columns)) -> Op:
                x = normal(device, torch.float32, *shape)
                return lambda: aten._linalg_svd.default(x, False, True)

            yield Case(entry, {"rows": rows, "columns": columns}, svd, value)
    for rows, columns in _BASES:

        def qr(device: str, shape: tuple[int, int] = (rows, columns)) -> Op:
            x = normal(device, torch.float32, *shape)
            return lambda: aten.linalg_qr.default(x, "reduced")

        def triangular(device: str, shape: tuple[int, int] = (rows, columns)) -> Op:
            """The last step of a QR decomposition's backward."""
            r = torch.ones(shape[1], shape[1], device=device).tril()
            grad = normal(device, torch.float32, *shape)
            return lambda: aten.linalg_solve_triangular.default(r, grad, upper=False, left=False)

        arguments = {"rows": rows, "columns": columns}
        yield Case("cusolver_qr_workspace", arguments, qr, own_blocks)
        yield Case("cublas_triangular_workspace", arguments, triangular, own_blocks)
    for shape in _SYSTEMS:

        def solve(device: str, shape: tuple[int, ...] = shape) -> Op:
            a, b = normal(device, torch.float32, *shape), normal(device, torch.float32, *shape)
            return lambda: aten._linalg_solve_ex.default(a, b, left=False)

        def backward(device: str, shape: tuple[int, ...] = shape) -> Op:
            a, b = normal(device, torch.float32, *shape), normal(device, torch.float32, *shape)
            _, factors, pivots, _ = aten._linalg_solve_ex.default(a, b, left=False)
            return lambda: aten.linalg_lu_solve.default(factors, pivots, b, left=False)

        yield Case("cusolver_solve_workspace", {"shape": list(shape)}, solve, own_blocks)
        yield Case("cusolver_solve_backward_workspace", {"shape": list(shape)}, backward, own_blocks)


def _first_are_a_view(_: Inside, result: Any) -> bool:
    """Whether the first right singular vectors, one in a row, are contiguous as they lie: PSOFT then keeps all."""
    return bool(result[2][:_FIRST].is_contiguous())
