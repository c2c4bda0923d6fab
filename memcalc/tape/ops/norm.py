"""Layer normalisation: one kernel. RMSNorm is composed, see blocks.py."""

from memcalc.tape.autocast import upper
from memcalc.tape.tape import Array, Tensor, like, new, record, save, wants


def layer_norm(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm over the last dim.

    Allocates: the output, mean and rstd in fp32. Saves: x, w, mean, rstd (x, w only where a gradient needs them).
    Backward allocates: gradients of x, w and bias, those that are wanted.
    Source: PyTorch 2.13, aten/src/ATen/native/cuda/layer_norm_kernel.cu, layer_norm_cuda, layer_norm_backward_cuda.
    """
    x, w, bias = upper(x), upper(w), upper(bias)
    wanted = wants(x), wants(w), wants(bias)
    kept = [save(bias.data), save(x.data), save(w.data)] if any(wanted) else []
    statistics = (*x.shape[:-1], 1)
    out = new(x.shape, x.dtype, "layer_norm")
    mean, rstd = new(statistics, "fp32", "layer_norm"), new(statistics, "fp32", "layer_norm")
    if kept:
        kept += [save(mean), save(rstd)]
    dtype = w.dtype

    def backward(g: Array) -> list[Array | None]:
        held = [saved.get() for saved in kept]
        gx = like(held[1], "layer_norm_backward") if wanted[0] else None
        gw = like(held[2], "layer_norm_backward", dtype) if wanted[1] else None
        gb = like(held[0], "layer_norm_backward", dtype) if wanted[2] else None
        del held
        return [gx, gw, gb]

    return record(out, (x, w, bias), backward)
