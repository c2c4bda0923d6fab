"""Fourier transforms, C3A's and FourierFT's: what cuFFT works in, which the table leaves out, for it to be learned."""

# ruff: noqa: SLF001 - aten's operators have such names

from collections.abc import Iterator
from itertools import product

import torch

from memcalc.profiling.kernels.case import Case, Op, normal, own_blocks

aten = torch.ops.aten

LEFT_OUT = ("cufft_of_reals_workspace", "cufft_workspace", "cufft_of_a_matrix_workspace")

_BY_N = 2  # fft_norm_mode
_TOKENS, _WIDTH = 1024, 2048
_BLOCKS = (2, 16, 256, 1024, 2048)  # C3A's --block-size
_OTHER_BLOCKS = ((96, 3072), (768, 3072), (3072, 3072), (43, 11_008), (688, 11_008), (11_008, 11_008))  # and width
_MATRICES = (
    (512, 2048),
    (2048, 512),
    (2048, 2048),
    (8192, 2048),
    (2048, 8192),
    (3072, 3072),
    (4096, 11_008),
    (768, 50),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for block, width in (*product(_BLOCKS, (_WIDTH,)), *_OTHER_BLOCKS):
        shape = (_TOKENS, width // block, block)

        def of_reals(device: str, shape: tuple[int, ...] = shape) -> Op:
            x = normal(device, torch.float32, *shape)
            return lambda: aten._fft_r2c.default(x, [2], 0, False)

        def by_frequency(device: str, shape: tuple[int, ...] = shape) -> Op:
            """Of what einsum gives: a product for each frequency."""
            tokens, pieces, block = shape
            x = normal(device, torch.complex64, block, tokens, pieces).permute(1, 2, 0)
            return lambda: aten._fft_c2c.default(x, [2], 0, True)

        yield Case("cufft_of_reals_workspace", {"shape": list(shape)}, of_reals, own_blocks)
        yield Case("cufft_workspace", {"shape": list(shape)}, by_frequency, own_blocks)
    for rows, columns in _MATRICES:

        def of_a_matrix(device: str, shape: tuple[int, int] = (rows, columns)) -> Op:
            x = normal(device, torch.complex64, *shape)
            return lambda: aten._fft_c2c.default(x, [0, 1], _BY_N, False)

        yield Case("cufft_of_a_matrix_workspace", {"rows": rows, "columns": columns}, of_a_matrix, own_blocks)
