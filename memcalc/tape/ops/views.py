"""Views and copies: no arithmetic, just other eyes on a block, or the block laid out anew."""

from collections.abc import Sequence
from functools import lru_cache

from memcalc.formats import promote
from memcalc.tape.layouts import Shape, contiguous_strides, is_contiguous
from memcalc.tape.tape import Array, Tensor, like, new, node_of, record, save, tape, wants


def view(x: Tensor, shape: Shape) -> Tensor:
    """The same block under another shape (which its layout must allow).

    Allocates: nothing. Backward: the gradient reshaped back, a copy where its layout forbids a view.
    Source: PyTorch 2.13, tools/autograd/derivatives.yaml, view: grad.reshape_symint(self.sizes).
    """
    strides = view_strides(x.shape, x.data.strides, shape)
    assert strides is not None, f"no view of {x.shape} with strides {x.data.strides} as {shape}"
    before = x.shape

    def backward(g: Array) -> list[Array]:
        return [reshape_array(g, before)]

    return record(x.data.view(shape, strides), (x,), backward)


def reshape(x: Tensor, shape: Shape) -> Tensor:
    """A view where the layout allows it, else a copy."""
    if view_strides(x.shape, x.data.strides, shape) is not None:
        return view(x, shape)
    return unsafe_view(contiguous(x), shape)


def unsafe_view(x: Tensor, shape: Shape) -> Tensor:
    """A reshaped fresh block of which no base stays alive (`_unsafe_view`)."""
    before = x.shape
    out = Array(x.data.storage, shape, contiguous_strides(shape), x.data.dtype)

    def backward(g: Array) -> list[Array]:
        return [reshape_array(g, before)]

    return record(out, (x,), backward)


def transpose(x: Tensor, first: int, second: int) -> Tensor:
    """Two dims change places. Allocates: nothing."""
    out = swap(x.data, first, second)

    def backward(g: Array) -> list[Array]:
        return [swap(g, first, second)]

    return record(out, (x,), backward)


def heads(x: Tensor, head_dim: int) -> Tensor:
    """(b, s, heads * head_dim) as (b, heads, s, head_dim): a view and a transposition in one node."""
    before = b, s, width = x.shape
    count = width // head_dim
    strides = x.data.strides
    out = x.data.view((b, count, s, head_dim), (strides[0], head_dim, strides[1], 1))

    def backward(g: Array) -> list[Array]:
        return [reshape_array(swap(g, 1, 2), before)]

    return record(out, (x,), backward)


def by_head(x: Tensor, head_dim: int) -> Tensor:
    """(b, s, heads * head_dim) as (b, s, heads, head_dim)."""
    b, s, width = x.shape
    return view(x, (b, s, width // head_dim, head_dim))


def expand(x: Tensor, shape: Shape) -> Tensor:
    """Dims of size 1 repeated without a copy. Backward: the engine sums the gradient."""
    strides = tuple(
        0 if old == 1 and size != 1 else stride
        for old, size, stride in zip(x.shape, shape, x.data.strides, strict=True)
    )

    def backward(g: Array) -> list[Array]:
        return [g]

    return record(x.data.view(shape, strides), (x,), backward)


def contiguous(x: Tensor) -> Tensor:
    """x itself if its dims lie in memory in order, else a copy. Backward: the gradient as it is."""
    return x if is_contiguous(x.shape, x.data.strides) else clone_contiguous(x)


def clone_contiguous(x: Tensor) -> Tensor:
    """A copy with the dims in order. Backward: the gradient as it is."""

    def backward(g: Array) -> list[Array]:
        return [g]

    return record(new(x.shape, x.dtype, "clone"), (x,), backward)


def clone(x: Tensor) -> Tensor:
    """A copy in the same layout. Backward: the gradient as it is."""

    def backward(g: Array) -> list[Array]:
        return [g]

    return record(like(x.data, "clone"), (x,), backward)


def narrow(x: Tensor, dim: int, length: int) -> Tensor:
    """`length` entries of one dim, as slicing gives them; all of them are an alias.

    Allocates: nothing. Backward allocates: a zeroed block of the full shape.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, slice_backward; of the alias:
    torch/csrc/autograd/python_variable_indexing.cpp, applySlicing.
    """
    full = x.shape
    if length == full[dim]:
        return expand(x, full)  # the same block, and backward the same gradient
    return cut(x, dim, length)


def cut(x: Tensor, dim: int, length: int) -> Tensor:
    """As `narrow`, but no alias of all entries: of a slice that stands alone (x[:2]), or counts from the end.

    Source: PyTorch 2.13, torch/csrc/autograd/python_variable_indexing.cpp, THPVariable_getitem
    (disable_slice_optimization), applySlicing.
    """
    full, dtype = x.shape, x.dtype
    shape = (*full[:dim], length, *full[dim + 1 :])

    def backward(g: Array) -> list[Array]:
        return [new(full, dtype, "slice_backward")]

    return record(x.data.view(shape, x.data.strides), (x,), backward)


def pick(x: Tensor, dim: int) -> Tensor:
    """One entry of one dim, which stays as size 1, by a list of indices, which is made a tensor: a copy."""
    return indexed(x, new((1,), "int64", "index"), dim)


def indexed(x: Tensor, index: Array, dim: int) -> Tensor:
    """The entries of one dim at `index` (n,): a copy, in which that dim is n.

    Saves: the index. Backward allocates: a zeroed block of the full shape, filled in place.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, index_backward.
    """
    full, dtype = x.shape, x.dtype
    kept = save(index) if wants(x) else None

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        held = kept.get()
        gradient = new(full, dtype, "new_zeros")
        del held
        return [gradient]

    return record(new((*full[:dim], *index.shape, *full[dim + 1 :]), dtype, "index"), (x,), backward)


def every_second(x: Tensor) -> Tensor:
    """Every second entry of the last dim: slicing with a step."""
    full, dtype, strides = x.shape, x.dtype, x.data.strides
    out = x.data.view((*full[:-1], full[-1] // 2), (*strides[:-1], 2 * strides[-1]))

    def backward(g: Array) -> list[Array]:
        return [new(full, dtype, "slice_backward")]

    return record(out, (x,), backward)


def stack(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors of one shape and dtype side by side in a new dim. Allocates: the output, contiguous. Backward: views.

    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, stack_tensors_backward.
    """
    count, shape, dtype = len(parts), parts[0].shape, parts[0].dtype

    def backward(g: Array) -> list[Array]:
        return [g.view(shape, (*g.strides[:dim], *g.strides[dim + 1 :])) for _ in range(count)]

    return record(new((*shape[:dim], count, *shape[dim:]), dtype, "stack"), parts, backward)


def select(x: Tensor, dim: int) -> Tensor:
    """One entry of one dim, the dim dropped. Backward allocates: a zeroed block of the full shape."""
    full, dtype, strides = x.shape, x.dtype, x.data.strides
    out = x.data.view((*full[:dim], *full[dim + 1 :]), (*strides[:dim], *strides[dim + 1 :]))

    def backward(g: Array) -> list[Array]:
        return [new(full, dtype, "select_backward")]

    return record(out, (x,), backward)


def unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    """All entries of one dim, which is dropped: views, from one node.

    Allocates: nothing. Backward allocates: all their gradients stacked; first one zero for an entry that has none.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, unbind_backward.
    """
    full, dtype, strides = x.shape, x.dtype, x.data.strides
    shape = (*full[:dim], *full[dim + 1 :])
    entries = [x.data.view(shape, (*strides[:dim], *strides[dim + 1 :])) for _ in range(full[dim])]
    if x.node is None or not tape.grad:
        return [Tensor(entry) for entry in entries]

    def backward(*gradients: Array | None) -> list[Array]:
        held = [new((), dtype, "zeros") if g is None else g for g in gradients]
        stacked = new(full, dtype, "stack")
        del held
        return [stacked]

    node = node_of((x,), backward, len(entries))
    return [Tensor(entry, node, index) for index, entry in enumerate(entries)]


def pad_last(x: Tensor, width: int) -> Tensor:
    """Zeros behind the last dim up to `width`. Allocates: a contiguous copy. Backward allocates: the slice, copied.

    Source: PyTorch 2.13, aten/src/ATen/native/PadNd.cpp, constant_pad_nd.
    """
    before = x.shape

    def backward(g: Array) -> list[Array]:
        return [new(before, g.dtype, "pad_backward")]

    return record(new((*before[:-1], width), x.dtype, "pad"), (x,), backward)


def split(x: Tensor, sizes: tuple[int, ...], dim: int) -> list[Tensor]:
    """Parts of one dim, one after the other: views, from one node.

    Allocates: nothing. Backward allocates: all their gradients joined; a part's zeros first, where it has none.
    Source: PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, split_with_sizes_backward.
    """
    full, dtype, strides = x.shape, x.dtype, x.data.strides
    shapes = [(*full[:dim], size, *full[dim + 1 :]) for size in sizes]
    parts = [x.data.view(shape, strides) for shape in shapes]
    if x.node is None or not tape.grad:
        return [Tensor(part) for part in parts]

    def backward(*gradients: Array | None) -> list[Array]:
        held = [new(shape, dtype, "zeros") if g is None else g for g, shape in zip(gradients, shapes, strict=True)]
        joined = new(full, dtype, "cat")
        del held
        return [joined]

    node = node_of((x,), backward, len(sizes))
    return [Tensor(part, node, index) for index, part in enumerate(parts)]


def cat(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Two tensors one after the other along a dim, of the wider dtype. Allocates: the output, contiguous.

    Backward: two views.
    """
    shapes = left.shape, right.shape
    shape = (*left.shape[:dim], left.shape[dim] + right.shape[dim], *left.shape[dim + 1 :])

    def backward(g: Array) -> list[Array]:
        return [g.view(part, g.strides) for part in shapes]

    return record(new(shape, promote(left.dtype, right.dtype), "cat"), (left, right), backward)


def swap(array: Array, first: int, second: int) -> Array:
    """An array with two dims exchanged."""
    shape, strides = list(array.shape), list(array.strides)
    shape[first], shape[second] = shape[second], shape[first]
    strides[first], strides[second] = strides[second], strides[first]
    return array.view(tuple(shape), tuple(strides))


def reshape_array(array: Array, shape: Shape) -> Array:
    """A gradient reshaped: itself, a view, or a contiguous copy."""
    if array.shape == shape:
        return array.view(shape, array.strides)
    strides = view_strides(array.shape, array.strides, shape)
    if strides is not None:
        return array.view(shape, strides)
    return new(shape, array.dtype, "clone")


@lru_cache(maxsize=4096)
def view_strides(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """Strides of a view of `target` shape, or None where the layout allows none.

    Source: PyTorch 2.13, aten/src/ATen/TensorUtils.cpp, computeStride.
    """
    if shape == target:
        return strides
    if not shape:
        return (1,) * len(target)
    if 0 in shape:
        return contiguous_strides(target)
    result = [0] * len(target)
    position = len(target) - 1
    base = strides[-1]  # stride of the innermost dim of the chunk under way
    covered, asked = 1, 1  # elements of the chunk in the old and the new shape
    for dim in range(len(shape) - 1, -1, -1):
        covered *= shape[dim]
        chunk_ends = dim == 0 or (shape[dim - 1] != 1 and strides[dim - 1] != covered * base)
        if not chunk_ends:
            continue
        while position >= 0 and (asked < covered or target[position] == 1):
            result[position] = asked * base
            asked *= target[position]
            position -= 1
        if asked != covered:
            return None
        if dim > 0:
            base, covered, asked = strides[dim - 1], 1, 1
    return tuple(result) if position == -1 else None
