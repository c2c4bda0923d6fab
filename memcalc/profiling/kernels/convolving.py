"""WaveFT's convolutions: what cuDNN works in, which the table leaves out, for it to be learned."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from memcalc.profiling.kernels.case import DTYPES, Case, Op, normal, own_blocks

aten = torch.ops.aten

LEFT_OUT = ("cudnn_upsampling_workspace", "cudnn_upsampling_backward_workspace")

_WEIGHTS = ((2048, 2048), (512, 2048), (8192, 2048))
_FILTERS = (2, 4, 20, 24)  # of db1, db2, db10, coif4
_SETTINGS = [2, 2], [0, 0], [1, 1], True, [0, 0], 1  # stride, padding, dilation, transposed, its padding, groups


def cases() -> Iterator[Case]:
    """All of them."""
    for (rows, columns), length, dtype in product(_WEIGHTS, _FILTERS, ("fp32", "bf16")):
        given = rows, columns, length, dtype

        def forward(device: str, given: Any = given) -> Op:
            bands, filters = _given(device, *given)
            return lambda: aten.convolution.default(bands, filters, None, *_SETTINGS)

        def backward(device: str, given: Any = given) -> Op:
            bands, filters = _given(device, *given)
            grad = torch.ones_like(aten.convolution.default(bands, filters, None, *_SETTINGS))
            wanted = [True, False, False]
            return lambda: aten.convolution_backward.default(grad, bands, filters, None, *_SETTINGS, wanted)

        arguments = {"rows": rows, "columns": columns, "filter": length, "dtype": dtype}
        yield Case("cudnn_upsampling_workspace", arguments, forward, own_blocks)
        yield Case("cudnn_upsampling_backward_workspace", arguments, backward, own_blocks)


def _given(device: str, rows: int, columns: int, length: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Four bands, each half as long and wide as the weight, and their filters."""
    height, width = ((size + length - 1) // 2 for size in (rows, columns))
    kind = DTYPES[dtype]
    return normal(device, kind, 1, 4, height, width), normal(device, kind, 4, 1, length, length)
