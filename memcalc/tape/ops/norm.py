"""Layer normalisation: one kernel. RMSNorm is composed, see blocks.py."""

from memcalc.tape.autocast import upper
from memcalc.tape.tape import Array, Tensor, like, new, record, save, tape, wants


def layer_norm(x: Tensor, w: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """LayerNorm over the last dim, with or without weight and bias.

    Allocates: the output, mean and rstd (fp32; on the CPU x's dtype where weight and bias have it too).
    Saves: x, w, mean, rstd (x, w only where a gradient needs them).
    Backward allocates: gradients of x, w and bias, those that are wanted.
    Source: PyTorch 2.13, aten/src/ATen/native/cuda/layer_norm_kernel.cu, layer_norm_cuda, layer_norm_backward_cuda;
    aten/src/ATen/native/layer_norm.cpp, layer_norm_cpu; cpu/mixed_data_type.h, param_scalar_type.
    """
    inputs = [upper(one) for one in (x, w, bias) if one is not None]
    wanted = [wants(one) for one in inputs]
    saved = [*inputs[2:], *inputs[:2]]  # the bias first
    kept = [save(one.data) for one in saved] if any(wanted) else []
    statistics = (*x.shape[:-1], 1)
    out = new(x.shape, inputs[0].dtype, "layer_norm")
    mixed = any(one.dtype != inputs[0].dtype for one in inputs)
    precision = inputs[0].dtype if tape.device == "cpu" and not mixed else "fp32"
    mean, rstd = new(statistics, precision, "layer_norm"), new(statistics, precision, "layer_norm")
    if kept:
        kept += [save(mean), save(rstd)]
    shapes = [(one.shape, one.dtype) for one in inputs[1:]]

    def backward(g: Array) -> list[Array | None]:
        held = [one.get() for one in kept]
        gx = like(held[max(len(shapes) - 1, 0)], "layer_norm_backward") if wanted[0] else None
        rest = [
            new(*shape, "layer_norm_backward") if one else None for shape, one in zip(shapes, wanted[1:], strict=True)
        ]
        del held
        return [gx, *rest]

    del saved
    return record(out, inputs, backward)
