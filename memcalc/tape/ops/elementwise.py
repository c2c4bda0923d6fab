"""Element by element: sums, products, casts, activations, dropout.

An output's layout follows the first operand of the output's full shape.
Source of the backward formulas: PyTorch 2.13, tools/autograd/derivatives.yaml and
torch/csrc/autograd/FunctionsManual.cpp; of layouts: aten/src/ATen/TensorIterator.cpp.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from memcalc.formats import promote
from memcalc.tape.autocast import upper
from memcalc.tape.layouts import Shape
from memcalc.tape.tape import Array, Node, Tensor, like, new, on_cuda, record, save, wants


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y. Allocates: the output. Saves: nothing. Backward: the same gradient, handed to both."""

    def backward(g: Array) -> list[Array]:
        return [g, g]

    return record(_combine(x.data, y.data, "add"), (x, y), backward)


def mul(x: Tensor, y: Tensor) -> Tensor:
    """x * y with broadcasting.

    Allocates: the output. Saves: y if x needs a gradient, x if y does.
    Backward allocates: the second factor's gradient first, then the first's.
    """
    kept_y = save(y.data) if wants(x) else None
    kept_x = save(x.data) if wants(y) else None

    def backward(g: Array) -> list[Array | None]:
        y_data = kept_y.get() if kept_y else None
        x_data = kept_x.get() if kept_x else None
        gy = _combine(g, x_data, "mul") if x_data else None
        gx = _combine(g, y_data, "mul") if y_data else None
        return [gx, gy]

    return record(_combine(x.data, y.data, "mul"), (x, y), backward)


def multiplied_in_place(x: Tensor, y: Tensor) -> Tensor:
    """x *= y. Allocates: a copy of what x was, if y needs a gradient. Saves: y if x needs one, and that copy.

    Backward allocates: as `mul`.
    Source: PyTorch 2.13, tools/autograd/gen_variable_type.py (original_self).
    """
    kept_y = save(y.data) if wants(x) else None
    kept_x = save(like(x.data, "clone")) if wants(y) else None

    def backward(g: Array) -> list[Array | None]:
        y_data = kept_y.get() if kept_y else None
        x_data = kept_x.get() if kept_x else None
        gy = _combine(g, x_data, "mul") if x_data else None
        gx = _combine(g, y_data, "mul") if y_data else None
        return [gx, gy]

    return record(x.data, (x, y), backward)


def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y. Allocates: the output. Saves: nothing. Backward allocates: the negative for y."""
    negated = wants(y)

    def backward(g: Array) -> list[Array | None]:
        return [g, like(g, "neg") if negated else None]

    return record(_combine(x.data, y.data, "sub"), (x, y), backward)


def scale(x: Tensor, op: str = "mul") -> Tensor:
    """x times a number. Saves: nothing. Backward allocates: one block."""

    def backward(g: Array) -> list[Array]:
        return [like(g, op)]

    return record(like(x.data, op), (x,), backward)


def divided(x: Tensor, by: Array) -> Tensor:
    """x / by, a count without a gradient. Saves: the count. Backward allocates: one block."""
    kept = save(by) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = like(g, "div")
        del held
        return [gradient]

    return record(like(x.data, "div"), (x,), backward)


def quotient(x: Tensor, y: Tensor) -> Tensor:
    """x / y with broadcasting.

    Saves: y, and x if y needs a gradient. Backward allocates: for y two divisions, the negative, their product; then
    x's gradient.
    """
    divisor = save(y.data) if wants(x) or wants(y) else None
    dividend = save(x.data) if wants(y) else None
    wanted = wants(x)

    def backward(g: Array) -> list[Array | None]:
        assert divisor is not None
        y_data = divisor.get()
        x_data = dividend.get() if dividend else None
        gy = None
        if x_data:  # -g * ((x / y) / y), one expression
            once = _combine(x_data, y_data, "div")
            twice, negative = _combine(once, y_data, "div"), like(g, "neg")
            gy = _combine(negative, twice, "mul")
            del once, twice, negative
        gx = _combine(g, y_data, "div") if wanted else None
        return [gx, gy]

    return record(_combine(x.data, y.data, "div"), (x, y), backward)


def divide(x: Tensor) -> Tensor:
    """x divided by a number. Saves: nothing. Backward allocates: one block."""
    return scale(x, "div")


def shift(x: Tensor) -> Tensor:
    """x plus a number. Saves: nothing. Backward: the same gradient."""

    def backward(g: Array) -> list[Array]:
        return [g]

    return record(like(x.data, "add"), (x,), backward)


def added_in_place(x: Tensor, y: Tensor | None = None, *, scaled: bool = False) -> Tensor:
    """x += y, or something without a gradient. Allocates: nothing.

    Backward: the same gradient; where y is `scaled` by a number on the way, y's is a block of its own.
    """
    inputs = (x,) if y is None else (x, y)
    multiplied = scaled and y is not None and wants(y)

    def backward(g: Array) -> list[Array]:
        return [g, like(g, "mul") if multiplied else g][:count]

    count = len(inputs)
    return _changed_through_view(x, inputs, backward) if x.data.is_view else record(x.data, inputs, backward)


def _changed_through_view(x: Tensor, inputs: Sequence[Tensor], backward: Callable[[Array], list[Array]]) -> Tensor:
    """x, a contiguous view of all of a block, after an op in place: what the op's own backward gives for x is copied.

    Backward allocates: zeros, as the gradient of a view; the block's gradient; a copy of the zeros for the op. Of a
    view that was changed before, the zeros once: the block's history is one, the view's is made anew each time.
    Source: PyTorch 2.13, torch/csrc/autograd: functions/tensor.cpp, CopySlices; variable.cpp, rebase_history;
    FunctionsManual.cpp, as_strided_backward.
    """

    def of_block(g: Array) -> list[Array]:
        result = new(g.shape, g.dtype, "new_empty_strided")
        _copied, *others = backward(new(g.shape, g.dtype, "clone"))
        return [result, *others]

    block = [_block_of(x), *inputs[1:]]
    return record(x.data, (record(x.data, block, of_block),), _OfView())


class _OfView:
    """Backward of seeing a changed block through a view again."""

    __slots__ = ()

    def __call__(self, g: Array) -> list[Array]:
        return [new(g.shape, g.dtype, "new_zeros")]


def _block_of(x: Tensor) -> Tensor:
    """The block as the last op in place left it, where x is a view of such a one; else x."""
    node = x.node
    if isinstance(node, Node) and isinstance(node.backward, _OfView) and node.inputs[0] is not None:
        return Tensor(x.data, *node.inputs[0][:2])
    return x


def scaled_in_place(x: Tensor) -> Tensor:
    """x *= a number. Allocates: nothing. Backward allocates: one block."""

    def backward(g: Array) -> list[Array]:
        return [like(g, "mul")]

    return record(x.data, (x,), backward)


def rows_scaled_in_place(x: Tensor, by: Array) -> Tensor:
    """x *= by, one number for each row, of a contiguous x that is a view. Allocates: nothing. Saves: the numbers.

    Backward allocates: what it takes to go through the view, and one block.
    """
    kept = save(by) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        return [_combine(g, held, "mul")]

    return _changed_through_view(x, (x,), backward)


def neg(x: Tensor) -> Tensor:
    """-x. Saves: nothing. Backward allocates: one block."""
    return scale(x, "neg")


def cast(x: Tensor, dtype: str) -> Tensor:
    """x in another dtype: x itself where it has it already. Backward allocates: the gradient in x's dtype."""
    before = x.dtype
    if before == dtype:
        return x

    def backward(g: Array) -> list[Array]:
        return [like(g, "to", before) if g.dtype != before else g]

    return record(like(x.data, "to", dtype), (x,), backward)


def square(x: Tensor) -> Tensor:
    """x.pow(2). Saves: x. Backward allocates: x.pow(1), twice that, its product with the gradient.

    Autocast computes it in fp32.
    """
    exact = upper(x)  # a new name: the caller's call keeps x itself alive
    kept = save(exact.data) if wants(exact) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        power = like(held, "pow")
        twice = like(power, "mul")  # one C++ expression: both live to its end
        return [_combine(g, twice, "mul")]

    return record(like(exact.data, "pow"), (exact,), backward)


def power(x: Tensor) -> Tensor:
    """x to a power other than 1 and 2. Saves and backward: as `square`."""
    return square(x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x). Saves: the result. Backward allocates: -0.5 g, result.pow(3), their product.

    Autocast computes it in fp32.
    """
    exact = upper(x)
    out = like(exact.data, "rsqrt")
    kept = save(out) if wants(exact) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        half = like(g, "mul")
        return [_combine(half, like(held, "pow"), "mul")]

    return record(out, (exact,), backward)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x). Saves: x. Backward allocates: one block."""
    return _saving_input(x, "silu", lambda g, held: _combine(g, held, "silu_backward"))


def gelu(x: Tensor) -> Tensor:
    """GELU by its own kernel, exact or by tanh. Saves: x. Backward allocates: one block."""
    return _saving_input(x, "gelu", lambda g, held: _combine(g, held, "gelu_backward"))


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Saves: the result. Backward allocates: one block, laid out as the result."""
    return _saving_result(x, "relu", lambda g, result: _combine(result, g, "threshold_backward"))


def exp(x: Tensor) -> Tensor:
    """e^x; in fp32 under autocast. Saves: the result. Backward allocates: one block."""
    return _saving_result(upper(x), "exp", lambda g, result: _combine(g, result, "mul"))


def tanh(x: Tensor) -> Tensor:
    """Saves: the result. Backward allocates: one block."""
    return _saving_result(x, "tanh", lambda g, result: _combine(g, result, "tanh_backward"))


def sigmoid(x: Tensor) -> Tensor:
    """Saves: the result. Backward allocates: one block."""
    return _saving_result(x, "sigmoid", lambda g, result: _combine(g, result, "sigmoid_backward"))


def hardtanh(x: Tensor) -> Tensor:
    """x cut off below one number and above another. Saves: x. Backward allocates: one block, laid out as x."""
    return _saving_input(x, "hardtanh", lambda g, held: _combine(held, g, "hardtanh_backward"))


def at_least(x: Tensor) -> Tensor:
    """torch.clamp to a least number. Saves: x. Backward allocates: a zero, where x is above (bool), the gradient."""
    kept = save(x.data) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        zero = new((), g.dtype, "scalar_tensor")
        above = like(held, "ge", "bool")
        gradient = _combine(above, g, "where", g.dtype)
        del zero, above, held
        return [gradient]

    return record(like(x.data, "clamp"), (x,), backward)


def within(x: Tensor) -> Tensor:
    """torch.clamp to a least and a largest number. Saves: x. Backward allocates: a zero, two masks, the gradient."""
    kept = save(x.data) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        zero = new((), g.dtype, "scalar_tensor")
        above, below = like(held, "ge", "bool"), like(held, "le", "bool")  # one expression
        gradient = _combine(above, g, "where", g.dtype)
        del zero, above, below, held
        return [gradient]

    return record(like(x.data, "clamp"), (x,), backward)


def log(x: Tensor) -> Tensor:
    """ln(x); in fp32 under autocast. Saves: x. Backward allocates: one block."""
    return _saving_input(upper(x), "log", lambda g, held: _combine(g, held, "div"))


def log1p(x: Tensor) -> Tensor:
    """ln(1 + x); in fp32 under autocast. Saves: x. Backward allocates: 1 + x, the gradient."""
    return _saving_input(upper(x), "log1p", lambda g, held: _combine(g, like(held, "add"), "div"))


def cos(x: Tensor) -> Tensor:
    """Saves: x. Backward allocates: the sine, its negative, the product with the gradient."""
    kept = save(x.data) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        sine = like(held, "sin")
        return [_combine(g, like(sine, "neg"), "mul")]

    return record(like(x.data, "cos"), (x,), backward)


def sin(x: Tensor) -> Tensor:
    """Saves: x. Backward allocates: the cosine, the product with the gradient."""
    return _saving_input(x, "sin", lambda g, held: _combine(g, like(held, "cos"), "mul"))


def _saving_input(x: Tensor, op: str, gradient: Callable[[Array, Array], Array]) -> Tensor:
    kept = save(x.data) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        return [gradient(g, held)]

    return record(like(x.data, op), (x,), backward)


def _saving_result(x: Tensor, op: str, gradient: Callable[[Array, Array], Array]) -> Tensor:
    out = like(x.data, op)
    kept = save(out) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        return [gradient(g, held)]

    return record(out, (x,), backward)


def mean(x: Tensor) -> Tensor:
    """Mean over the last dim, which stays as size 1. Saves: nothing. Backward allocates: one full block."""
    full = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(full, g.dtype, "div")]

    return record(new((*full[:-1], 1), x.dtype, "mean"), (x,), backward)


def dropout(x: Tensor, probability: float) -> Tensor:
    """Dropout in training mode: x itself at probability 0.

    Allocates: the output, a bool mask. Saves: the mask. Backward allocates: one block.
    Source: PyTorch 2.13, aten/src/ATen/native/Dropout.cpp: CUDA takes native_dropout for 0 < p < 1, the CPU noise
    in x's own dtype and a product.
    """
    if not probability:
        return x
    if not on_cuda():
        return mul(x, Tensor(like(x.data, "dropout noise")))
    out = like(x.data, "native_dropout")
    mask = like(x.data, "native_dropout", "bool")
    kept = save(mask) if wants(x) else None
    del mask

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        return [_combine(g, held, "native_dropout_backward", g.dtype)]

    return record(out, (x,), backward)


def _combine(x: Array, y: Array, op: str, dtype: str = "") -> Array:
    """A new block for an element-wise result of two arrays."""
    alike = bool(x.shape) == bool(y.shape)  # a scalar gives way to what is none
    kind = dtype or (promote(x.dtype, y.dtype) if alike else x.dtype if x.shape else y.dtype)
    if x.shape == y.shape:
        return like(x, op, kind)
    shape = broadcast(x.shape, y.shape)
    if x.shape == shape:
        return like(x, op, kind)
    if y.shape == shape:
        return like(y, op, kind)
    return new(shape, kind, op)


@lru_cache(maxsize=4096)
def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape of an element-wise result."""
    rank = max(len(left), len(right))
    padded = ((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right)
    return tuple(b if a == 1 else a for a, b in zip(*padded, strict=True))
