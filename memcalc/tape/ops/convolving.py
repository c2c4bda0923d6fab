"""Convolutions. What cuDNN works in is not known here.

Source of the backward formula: PyTorch 2.13, tools/autograd/derivatives.yaml, convolution.
"""

from math import prod

from memcalc.tape.autocast import lower
from memcalc.tape.tape import Array, Tensor, new, products, record, save, wants


def upsampled(x: Tensor, filters: Tensor) -> Tensor:
    """torch.nn.functional.conv_transpose2d with a stride of 2 by frozen filters. Under autocast x, filters are cast.

    Shapes: (b, c, h, w) with (c, d, k, k) -> (b, d, 2 h + k - 2, 2 w + k - 2).
    Allocates: the output. Saves: x, the filters. Backward allocates: x's gradient.
    """
    x_low, f_low = lower(x), lower(filters)
    b, c, h, w = x.shape
    _, d, k, _ = filters.shape
    kept = [save(one.data) for one in (x_low, f_low)] if wants(x_low) else []
    out = new((b, d, 2 * h + k - 2, 2 * w + k - 2), x_low.dtype, "convolution")
    size = prod(x.shape) * d * k * k
    products(size)

    def backward(g: Array) -> list[Array]:
        held = [saved.get() for saved in kept]
        gradient = new((b, c, h, w), g.dtype, "convolution_backward")
        products(size)
        del held
        return [gradient]

    return record(out, (x_low,), backward)
