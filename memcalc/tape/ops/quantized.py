"""bitsandbytes' 4-bit linear layer: the packed weight is an attribute of the node, nothing else is kept.

Source: bitsandbytes 0.50.2, nn/modules.py (Linear4bit.forward), autograd/_functions.py (MatMul4Bit),
functional.py (dequantize_4bit).
"""

from dataclasses import dataclass
from math import prod

from memcalc.errors import InvalidWorkload
from memcalc.formats import BLOCK_4BIT
from memcalc.kernels import Gpu, gemm_4bit_scratch
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.tape import Array, Leaf, Tensor, gemm, like, new, products, record, scratch, tape, wants


@dataclass(slots=True, eq=False, repr=False)
class Packed4Bit:
    """A weight (d_out, d_in) in 4-bit codes, with its quantization state."""

    d_out: int
    d_in: int
    compute_dtype: str
    double_quant: bool
    gpu: Gpu
    codes: Array
    state: list[Array]
    bias: Tensor | None = None

    @property
    def packed(self) -> int:
        return 4

    @property
    def turned(self) -> bool:
        return False

    def linear(self, x: Tensor) -> Tensor:
        """Linear4bit.forward: x in the compute dtype, the result in x's own; the bias is cast for good."""
        low = cast(x, self.compute_dtype)
        if self.bias is not None:
            cast_bias(self.bias, self.compute_dtype)
        return cast(self._multiply(low), x.dtype)

    def dense(self) -> Tensor:
        """The weight (d_out, d_in) dequantized."""
        return Tensor(_dequantized(self.d_out, self.d_in, self.compute_dtype, self.double_quant))

    def copied(self, bias: Tensor | None) -> list[Array]:
        """A deep copy of the layer, which copies its quantization state twice: the weight's, then its own.

        Source: bitsandbytes 0.50.2, nn/modules.py, Params4bit.__deepcopy__, _quantize; functional.py, QuantState.
        """
        blocks = [*self._state(), like(self.codes, "clone")]
        if bias is not None:
            blocks.append(like(bias.data, "clone"))
        return [*blocks, *self._state()]

    def _state(self) -> list[Array]:
        n = self.d_out * self.d_in
        absmax, kind = (BLOCK_4BIT.absmax_count(n),), "uint8" if self.double_quant else "fp32"
        blocks = [new(absmax, kind, "clone"), new((16,), "fp32", "clone")]
        if self.double_quant:
            blocks += [new(shape, "fp32", "clone") for shape in ((), (BLOCK_4BIT.nested_count(n),), (256,))]
        return blocks

    def _multiply(self, x: Tensor) -> Tensor:
        """MatMul4Bit: x W^T. Saves: nothing. Allocates: what the kernel dequantizes inside, and the output.

        Backward allocates: the bias's gradient where it trains, absmax in fp32 where it is quantized itself, the
        weight dequantized, x's gradient.
        """
        n, k, rows = self.d_out, self.d_in, prod(x.shape[:-1])
        inner = gemm_4bit_scratch(self.gpu, rows, n, k, x.dtype, double_quant=self.double_quant)
        held = scratch(inner.before, "gemm_4bit")
        out = new((*x.shape[:-1], n), x.dtype, "gemm_4bit")
        if inner.before:
            gemm()
        products(rows * n * k)
        del held
        shape, dtype, double_quant = x.shape, x.dtype, self.double_quant
        bias, wanted = self.bias, (wants(x), self.bias is not None and wants(self.bias))

        def backward(g: Array) -> list[Array | None]:
            gb = new(g.shape[1:], dtype, "sum") if wanted[1] else None
            if not wanted[0]:
                return [None, gb]
            weight = _dequantized(n, k, dtype, double_quant)
            gx = new(shape, dtype, "mm")
            gemm(rows * n * k)
            del weight
            return [gx, gb]

        return record(out, (x,) if bias is None else (x, bias), backward, python=True)


def cast_bias(bias: Tensor, dtype: str) -> None:
    """The bias in another dtype from now on: `bias.data = bias.data.to(dtype)`, which inference mode forbids."""
    if bias.dtype == dtype:
        return
    if tape.inference:
        raise InvalidWorkload(
            f"bitsandbytes casts this model's {bias.dtype} biases to {dtype} for good, which PyTorch refuses under "
            "inference_mode: take --amp none, or the --dtype of the activations"
        )
    bias.data = like(bias.data, "bias", dtype, "weights")
    if isinstance(bias.node, Leaf):
        bias.node.array = bias.data


def _dequantized(n: int, k: int, dtype: str, double_quant: bool) -> Array:
    absmax = (
        new((BLOCK_4BIT.absmax_count(n * k),), "fp32", "dequantize_blockwise", "workspace") if double_quant else None
    )
    weight = new((n, k), dtype, "dequantize_4bit", "workspace")
    del absmax
    return weight


def quantize(
    shape: tuple[int, int], *, double_quant: bool, first: bool, from_dtype: str, transposed: bool = False
) -> tuple[Array, list[Array]]:
    """Pack a half-precision weight that is put on the device for it: the codes, and the quantization state.

    `first`: the process makes the map of the nested quantization now, and keeps it. `transposed`: the weight is
    laid out anew first, as Conv1D's has to be.
    Source: bitsandbytes 0.50.2, functional.py, quantize_4bit, quantize_blockwise, create_dynamic_map.
    """
    n = prod(shape)
    half = new(shape, from_dtype, "weight", "weights")
    laid_out = new(shape, from_dtype, "clone", "weights") if transposed else half
    state = "quantization_state"
    absmax = new((BLOCK_4BIT.absmax_count(n),), "fp32", "absmax", "workspace" if double_quant else state)
    codes = new((BLOCK_4BIT.packed_bytes(n), 1), "uint8", "weight", "weights")
    kept = [new((16,), "fp32", "code", state)]
    _largest(kept[0])
    if not double_quant:
        del half, laid_out
        return codes, [absmax, *kept]
    kept.append(new((), "fp32", "offset", state))
    shifted = new(absmax.shape, "fp32", "sub", "workspace")
    if first:
        kept.append(new((256,), "fp32", "nested map", state))
    kept.append(new((BLOCK_4BIT.nested_count(n),), "fp32", "nested absmax", state))
    kept.append(new(absmax.shape, "uint8", "absmax", state))
    kept.append(new((256,), "fp32", "nested code", state))
    del shifted, absmax, half, laid_out
    return codes, kept


def _largest(code: Array) -> None:
    """The code divided by its largest value: the size is taken on the way."""
    size = new(code.shape, "fp32", "abs", "workspace")
    largest = new((), "fp32", "max", "workspace")
    del size, largest
