"""The inverse Fourier transform of a real matrix. cuFFT's own workspace is not known here.

Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml (_fft_c2c, select, view_as_real).
"""

from memcalc.tape.tape import Array, Tensor, new, record


def inverse_fft(x: Tensor) -> Tensor:
    """torch.fft.ifft2: x made complex, then transformed.

    Allocates: x in complex64, which dies at once, the output. Saves: nothing. Backward allocates: the transformed
    gradient, of which the real part is seen through a view.
    """
    shape = x.shape
    widened = new(shape, "complex64", "to")
    out = new(shape, "complex64", "fft")
    del widened

    def backward(g: Array) -> list[Array]:
        return [_real_part(new(shape, "complex64", "fft"))]

    return record(out, (x,), backward)


def real(x: Tensor) -> Tensor:
    """The real part: a view. Backward allocates: zeros, both parts of them."""
    shape = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(shape, "complex64", "select_backward")]

    return record(_real_part(x.data), (x,), backward)


def _real_part(array: Array) -> Array:
    strides = tuple(2 * stride for stride in array.strides)
    return Array(array.storage, array.shape, strides, "fp32", True)
