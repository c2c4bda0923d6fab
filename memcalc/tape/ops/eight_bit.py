"""bitsandbytes' 8-bit linear layer (LLM.int8(), arXiv:2208.07339): the input is quantized row by row, and kept whole.

No column of an activation is taken for an outlier: which are, data decides. Where any is, they are picked out, and the
product of the picked is added to a second output.
Source: bitsandbytes 0.50.2, nn/modules.py (Linear8bitLt.forward, Int8Params._quantize), autograd/_functions.py
(MatMul8bitLt), backends/cuda/ops.py.
"""

from dataclasses import dataclass
from math import prod

from memcalc.kernels import INT8_THRESHOLD, int8_dequant_scratch, int8_quant_scratch
from memcalc.tape.layouts import Shape, contiguous_strides, is_contiguous
from memcalc.tape.ops.quantized import cast_bias
from memcalc.tape.ops.views import reshape_array
from memcalc.tape.tape import Array, Node, Tensor, gemm, new, products, record, scratch, wants


@dataclass(slots=True, eq=False, repr=False)
class Packed8Bit:
    """A weight (d_out, d_in) in whole numbers, with a scale for each row."""

    d_out: int
    d_in: int
    codes: Array
    scales: Array
    bias: Tensor | None = None

    @property
    def packed(self) -> int:
        return 8

    @property
    def turned(self) -> bool:
        return False

    def linear(self, x: Tensor) -> Tensor:
        """Linear8bitLt.forward: the result in x's own dtype, to which the bias is cast for good."""
        if self.bias is not None:
            cast_bias(self.bias, x.dtype)
        return self._multiply(x)

    def dense(self) -> Tensor:
        """The weight (d_out, d_in) dequantized, in fp32: whole numbers times scales, then times a constant."""
        shape = (self.d_out, self.d_in)
        scaled = new(shape, "fp32", "mul")
        weight = new(shape, "fp32", "mul")
        del scaled
        return Tensor(weight)

    def _multiply(self, x: Tensor) -> Tensor:
        """MatMul8bitLt: x W^T. Saves: nothing; the context keeps x itself until the graph dies.

        Allocates: x in fp16, its rows' scales and codes, what the quantization looks for outliers with, the product in
        whole numbers, the output in fp16 where that is not x's dtype, the output.
        Backward allocates: the bias's gradient where it trains, the weight in x's dtype, its rows' factors, the
        gradient in x's dtype, x's gradient, which is seen through a view.
        """
        n, k, rows = self.d_out, self.d_in, prod(x.shape[:-1])
        flat = reshape_array(x.data, (rows, k))
        _codes = _by_rows(flat, INT8_THRESHOLD)
        product = new((rows, n), "int32", "int8_linear_matmul")
        products(rows * n * k)
        inner = int8_dequant_scratch(rows, n, x.dtype)
        held = scratch(inner.before, "int8_mm_dequant")
        out = new((rows, n), x.dtype, "int8_mm_dequant")
        del held, product
        shape, dtype = x.shape, x.dtype
        bias, wanted = self.bias, (wants(x), self.bias is not None and wants(self.bias))

        def backward(g: Array) -> list[Array | None]:
            gb = new(g.shape[1:], dtype, "sum") if wanted[1] else None
            flat_g = _contiguous(reshape_array(g, (rows, n)))
            return [_input_gradient(flat_g, n, k, shape, dtype) if wanted[0] else None, gb]

        seen = out.view((*shape[:-1], n), contiguous_strides((*shape[:-1], n)))
        result = record(seen, (x,) if bias is None else (x, bias), backward, python=True)
        if isinstance(result.node, Node) and wanted[0]:
            result.node.attributes = flat
        return result


def _by_rows(x: Array, threshold: float) -> tuple[Array, Array]:
    """int8_vectorwise_quant of x in fp16: the scales are born before the codes."""
    rows, columns = x.shape
    half = x if x.dtype == "fp16" else new(x.shape, "fp16", "to")
    scales = new((rows,), "fp32", "int8_vectorwise_quant")
    codes = new((rows, columns), "int8", "int8_vectorwise_quant")
    scratch(int8_quant_scratch(rows, columns, threshold=threshold).after, "int8_vectorwise_quant")
    del half
    return codes, scales


def _contiguous(array: Array) -> Array:
    return array if is_contiguous(array.shape, array.strides) else new(array.shape, array.dtype, "clone")


def _input_gradient(g: Array, n: int, k: int, shape: Shape, dtype: str) -> Array:
    weight = new((n, k), dtype, "to")
    factors = new((n, 1), "fp32", "mul")
    del factors
    low = g if g.dtype == dtype else new(g.shape, dtype, "to")
    gradient = new((g.shape[0], k), dtype, "mm")
    gemm(g.shape[0] * n * k)
    del weight, low
    return gradient.view(shape, contiguous_strides(shape))


def quantize_rows(shape: tuple[int, int], from_dtype: str) -> tuple[Array, Array]:
    """Pack a weight that is put on the device for it, by way of the host: the codes, and each row's scale."""
    whole = new(shape, from_dtype, "weight", "weights")
    half = new(shape, "fp16", "empty_like", "weights")
    scales = new(shape[:1], "fp32", "scales", "quantization_state")
    codes = new(shape, "int8", "weight", "weights")
    del whole, half
    return codes, scales
