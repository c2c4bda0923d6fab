"""What an optimizer's step allocates besides the states that it keeps: a function for each `temporaries` of a row.

The functions have the locals of the code that they stand for, since locals decide lifetimes. Each is handed the groups
of parameters that have gradients, and where to find, or make, a parameter's states.
"""

from collections.abc import Callable, Mapping

from memcalc.formats import HALF
from memcalc.optimizers import Temporaries
from memcalc.tape.tape import Array, Leaf, like, new, on_cuda, tape

Groups = list[list[Leaf]]
StatesOf = Callable[[Leaf], dict[str, Array]]


def by_dtype(leaves: list[Leaf]) -> Groups:
    """Groups of one dtype each, the dtype met last first.

    Source: PyTorch 2.13, ATen/native/ForeachUtils.h, _group_tensors_by_first_tensors_device_and_dtype: an
    unordered_map, whose newest bucket libstdc++ puts in front.
    """
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.array.dtype, []).append(leaf)
    return list(reversed(groups.values()))


def _nothing(groups: Groups, states_of: StatesOf) -> None:
    """Kernels that change parameters and states in place."""
    for group in groups:
        for leaf in group:
            states_of(leaf)


def _roots_at_once(groups: Groups, states_of: StatesOf) -> None:
    """The square root of the second moment, of all tensors of a dtype at once; a list dies when the next is there.

    Source: PyTorch 2.13, torch/optim/adam.py, _multi_tensor_adam.
    """
    for group in groups:
        _nothing([group], states_of)
        roots: list[Array] = []
        for leaves in by_dtype(group):
            roots = [_root(leaf) for leaf in leaves]
        del roots


def _roots_one_by_one(groups: Groups, states_of: StatesOf) -> None:
    """The square root of the second moment, over its bias correction; a tensor's dies when the next one's is there.

    Source: PyTorch 2.13, torch/optim/adam.py, _single_tensor_adam.
    """
    for group in groups:
        _nothing([group], states_of)
        denominator: Array | None = None
        for leaf in group:
            denominator = _over_bias_correction(leaf)
        del denominator


def _roots_at_once_on_a_gpu(groups: Groups, states_of: StatesOf) -> None:
    """As _roots_at_once, or tensor by tensor where no foreach kernels are taken.

    Source: PyTorch 2.13, torch/optim/rmsprop.py, _multi_tensor_rmsprop and _single_tensor_rmsprop;
    torch/utils/_foreach_utils.py, _get_foreach_kernels_supported_devices.
    """
    (_roots_at_once if on_cuda() else _single_roots)(groups, states_of)


def _single_roots(groups: Groups, states_of: StatesOf) -> None:
    for group in groups:
        _nothing([group], states_of)
        root: Array | None = None
        for leaf in group:
            root = _root(leaf)
        del root


def _roots_and_numerators(groups: Groups, states_of: StatesOf) -> None:
    """The square root of the sum of squares, then the gradients times the learning rate.

    Source: PyTorch 2.13, torch/optim/adagrad.py, _multi_tensor_adagrad and _single_tensor_adagrad.
    """
    if not on_cuda():
        _single_roots(groups, states_of)
        return
    for group in groups:
        _nothing([group], states_of)
        roots: list[Array] = []
        numerators: list[Array] = []
        for leaves in by_dtype(group):
            roots = [_root_of_sum(leaf, states_of(leaf)["sum"]) for leaf in leaves]
            numerators = [_temporary(leaf, "mul") for leaf in leaves]
        del roots, numerators


def _group_at_once(groups: Groups, states_of: StatesOf) -> None:
    """The second moment over its bias correction, of a group whatever its dtypes; it lives until the next group's.

    Source: schedulefree 1.4.1, adamw_schedulefree.py, AdamWScheduleFree.step.
    """
    denominators: list[Array] = []
    for group in groups:
        _nothing([group], states_of)
        if group:
            denominators = [_temporary(leaf, "div") for leaf in group]
    del denominators


def _over_bias_correction(leaf: Leaf) -> Array:
    root = _root(leaf)
    return like(root, "div", category="workspace")


def _root(leaf: Leaf) -> Array:
    return _temporary(leaf, "sqrt")


def _root_of_sum(leaf: Leaf, total: Array) -> Array:
    """In the state's dtype: a constructor made it, and a quantized layer may have cast its bias since."""
    tape.scope = leaf.scope
    return like(total, "sqrt", category="workspace")


def _temporary(leaf: Leaf, op: str) -> Array:
    tape.scope = leaf.scope
    return like(leaf.array, op, category="workspace")


def _adafactor(groups: Groups, states_of: StatesOf) -> None:
    """Tensor by tensor in fp32: copies of gradient and parameter, the update, and what leads to it.

    Source: transformers 5.24.0, optimization.py, Adafactor.step; an iteration's locals live until they are rebound.
    """
    for group in groups:
        for leaf in group:
            tape.scope = leaf.scope
            grad = leaf.grad
            assert grad is not None
            if grad.dtype in HALF:
                grad = _fp32(grad.shape, "float")
            state = states_of(leaf)
            p_data_fp32 = leaf.array
            if p_data_fp32.dtype in HALF:
                p_data_fp32 = _fp32(p_data_fp32.shape, "float")
            state["RMS"] = _rms("optimizer_states")
            update = _squared(grad)
            if "exp_avg_sq_row" in state:
                row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
                _fp32(row.shape, "mean")
                _fp32(column.shape, "mean")
                update = _approximated(grad, row, column)
            else:
                update = _fp32(grad.shape, "rsqrt")
            _clipped(update)
            _fp32(update.shape, "neg")


def _fp32(shape: tuple[int, ...], op: str, category: str = "workspace") -> Array:
    return new(shape, "fp32", op, category)


def _rms(category: str = "workspace") -> Array:
    norm = _fp32((), "linalg_vector_norm")
    rms = _fp32((), "div", category)
    del norm
    return rms


def _squared(grad: Array) -> Array:
    square = _fp32(grad.shape, "pow")
    update = _fp32(grad.shape, "add")
    del square
    return update


def _approximated(grad: Array, row: Array, column: Array) -> Array:
    """_approx_sq_grad: the product of a column and a row."""
    mean = _fp32((*row.shape[:-1], 1), "mean")
    r_factor = _fp32(row.shape, "div")
    del mean
    c_factor = _fp32(column.shape, "rsqrt")
    update = _fp32(grad.shape, "mul")
    del r_factor, c_factor
    return update


def _clipped(update: Array) -> None:
    """The update is divided in place by how far its RMS is above the threshold."""
    rms = _rms()
    excess = _fp32((), "div")
    del rms, excess


UPDATES: Mapping[Temporaries, Callable[[Groups, StatesOf], None]] = {
    "none": _nothing,
    "all at once": _roots_at_once,
    "one by one": _roots_one_by_one,
    "all at once on a GPU": _roots_at_once_on_a_gpu,
    "roots and numerators": _roots_and_numerators,
    "group at once": _group_at_once,
    "update in fp32": _adafactor,
}
