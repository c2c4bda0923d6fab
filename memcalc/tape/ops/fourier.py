"""The inverse Fourier transform of a real matrix, and products by circulant blocks.

cuFFT's own workspace is not known here. Source of the backward formulas: PyTorch 2.13,
tools/autograd/derivatives.yaml (_fft_c2c, select, view_as_real).
"""

from collections.abc import Sequence
from math import prod

from memcalc.tape.layouts import Shape, contiguous_strides
from memcalc.tape.ops.linear import batched
from memcalc.tape.ops.views import reshape_array, view_strides
from memcalc.tape.tape import Array, Tensor, new, record, save, tape, wants

_COMPLEX = "complex64"


def inverse_fft(x: Tensor) -> Tensor:
    """torch.fft.ifft2: x made complex, then transformed.

    Allocates: x in complex64, which dies at once, the output. Saves: nothing. Backward allocates: the transformed
    gradient, of which the real part is seen through a view.
    """
    shape = x.shape
    widened = new(shape, _COMPLEX, "to")
    out = new(shape, _COMPLEX, "fft")
    del widened

    def backward(g: Array) -> list[Array]:
        return [_real_part(new(shape, _COMPLEX, "fft"))]

    return record(out, (x,), backward)


def real(x: Tensor) -> Tensor:
    """The real part: a view. Backward allocates: zeros, both parts of them."""
    shape = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(shape, _COMPLEX, "select_backward")]

    return record(_real_part(x.data), (x,), backward)


def _real_part(array: Array) -> Array:
    strides = tuple(2 * stride for stride in array.strides)
    return Array(array.storage, array.shape, strides, "fp32", True)


def circular(x: Tensor, kernels: Tensor) -> Tensor:
    """Pieces of x by m x n circulant blocks, each the convolution with a kernel: peft's BlockCircularConvolution.

    Shapes: (..., n * b) with (m, n, b) -> (..., m * b), seen through a complex block. Both in fp32.
    Allocates: the spectrum of x, that of the kernels, their product at each frequency, its transform; all but the last
    die. Saves: both inputs. Backward allocates: as much for either gradient, both of which are computed always, and
    both are seen through complex blocks; the spectrum of what came in once.
    An inverse transform of real numbers is conjugate by a mark alone, which einsum as a whole does not read: in
    inference mode, where autograd does not take it apart before, it is written out.
    Source: peft 0.21.2, tuners/c3a/utils.py; PyTorch 2.13, aten/src/ATen/native: SpectralOps.cpp, Linear.cpp, einsum.
    """
    m, n, b = kernels.shape
    leading = x.shape[:-1]
    x_rows, g_rows = (list(zip(leading, contiguous_strides((*leading, k, b)), strict=False)) for k in (n, m))
    outer, inner, frequency = (m, n * b), (n, b), (b, 1)  # of the kernels
    pieces = reshape_array(x.data, (*leading, n, b))
    spectra = [_transformed((*leading, n, b)), _transformed((m, n, b))]
    if tape.inference:
        spectra.append(new((*leading, n, b), _COMPLEX, "clone"))
    product = _contracted(
        [*((row, _NONE) for row in x_rows), (_NONE, outer), (frequency, frequency)],
        [(inner, inner)],
        () if tape.inference else (*leading, n, b),
    )
    del spectra
    out = _transformed((*leading, m, b))
    del product
    kept = [save(pieces), save(kernels.data)] if wants(x) or wants(kernels) else []

    def backward(g: Array) -> list[Array]:
        held = [saved.get() for saved in kept]
        gradient = reshape_array(g, (*leading, m, b))
        spectrum, of_kernels = _transformed((*leading, m, b)), _transformed((m, n, b))
        product = _contracted(
            [*((row, _NONE) for row in g_rows), (_NONE, inner), (frequency, frequency)], [((m, b), outer)], (m, n, b)
        )
        del of_kernels
        gx = _transformed((*leading, n, b))
        del product
        of_x = _transformed((*leading, n, b))
        product = _contracted(
            [((m, b), _NONE), (_NONE, inner), (frequency, frequency)],
            list(zip(g_rows, x_rows, strict=True)),
            (*leading, n, b),
        )
        del of_x
        gk = _transformed((m, n, b))
        del product, spectrum, gradient, held
        return [reshape_array(_real_part(gx), (*leading, n * b)), _real_part(gk)]

    return record(reshape_array(_real_part(out), (*leading, m * b)), (x, kernels), backward, python=True)


def _transformed(shape: Shape) -> Array:
    return new(shape, _COMPLEX, "fft")


Dim = tuple[int, int]  # its size and its stride
_NONE: Dim = (1, 1)  # of a factor that has no such dim


def _contracted(kept: Sequence[tuple[Dim, Dim]], summed: Sequence[tuple[Dim, Dim]], marked: Shape) -> Array:
    """einsum over two complex factors: each dim in both, those of the result and those that are summed.

    Where nothing is summed it is no matrix product, and the factor that is `marked` as conjugate, if any, is written
    out before it.
    """
    over = [dims for dims in summed if dims[0][0] != 1]
    kept = [*kept, *(dims for dims in summed if dims[0][0] == 1)]
    if not over:
        written = new(marked, _COMPLEX, "clone") if marked else None
        out = new(tuple(max(left[0], right[0]) for left, right in kept), _COMPLEX, "mul")
        del written
        return out
    both = [dims for dims in kept if dims[0][0] != 1 and dims[1][0] != 1]
    left = [dims for dims in kept if dims[0][0] != 1 and dims[1][0] == 1]
    right = [dims for dims in kept if dims[0][0] == 1]
    first = _matrices([[pair[0] for pair in part] for part in (both, left, over, right)])
    second = _matrices([[pair[1] for pair in part] for part in (both, over, right, left)])
    return batched(first, second, _COMPLEX, "bmm")


def _matrices(parts: Sequence[Sequence[Dim]]) -> tuple[Shape, Shape]:
    """Shape and strides of a factor whose dims are permuted into four parts, the last all of size 1, and viewed as
    (batch, rows, columns).
    """
    shape = tuple(prod(size for size, _ in part) for part in parts[:3])
    dims = [dim for part in parts for dim in part]
    strides = view_strides(tuple(size for size, _ in dims), tuple(stride for _, stride in dims), shape)
    assert strides is not None
    return shape, strides
