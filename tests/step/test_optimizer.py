"""Clipping, the optimizer's step and GradScaler against torch's own, on meta."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memcalc.catalog.find import Model
from memcalc.comparing import first_difference
from memcalc.kernels import cublas_workspace
from memcalc.optimizers import OPTIMIZERS
from memcalc.realize.optimizer import make_optimizer, make_scaler
from memcalc.step.clipping import clip
from memcalc.step.optimizer import Habits, States
from memcalc.step.scaler import Scaler
from memcalc.step.updates import by_dtype
from memcalc.tape.tape import Leaf, Storage, Tensor, new, tape
from memcalc.timeline import Timeline
from memcalc.tracing import likeness
from memcalc.tracing.attention import Chooser
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer
from memcalc.workload import Workload
from tests.tape.side_by_side import DTYPES, GPU

Parameters = list[tuple[tuple[int, ...], str, bool]]  # shape, dtype, whether it has a gradient

ROWS: Final[Mapping[str, dict[str, Any]]] = {
    **{name: {"optimizer": name} for name, row in OPTIMIZERS.items() if not row.projects},
    **{f"{name} with momentum": {"optimizer": name, "momentum": 0.9} for name in ("sgd", "rmsprop")},
}
GIVEN: Final[Parameters] = [
    ((4, 8), "fp32", True), ((8,), "fp32", True), ((3, 5), "bf16", True), ((5,), "fp32", False), ((6,), "bf16", True),
    ((70, 60), "fp32", True), ((500, 201), "bf16", True), ((65, 63), "bf16", True),
]  # fmt: skip


def workload_of(**options: Any) -> Workload:
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 8, "vocab_size": 8}  # fmt: skip
    return Workload.of(Model("tiny", config, "test"), "full", loop="plain", **options)


@contextlib.contextmanager
def _like_cuda(w: Workload) -> Iterator[None]:
    pytest.importorskip(OPTIMIZERS[w.optimizer].package)
    with likeness.like_cuda(Place(), Chooser(GPU, None)), likeness.libraries(None, w):
        yield


def _taken(parameters: Parameters, w: Workload) -> Parameters:
    """The parameters in dtypes that the optimizer has kernels for."""
    half = "fp16" if OPTIMIZERS[w.optimizer].without_bf16 else "bf16"
    return [(shape, half if dtype == "bf16" else dtype, given) for shape, dtype, given in parameters]


def _here(w: Workload, parameters: Parameters, *, steps: int, clipped: bool, scaled: bool) -> Timeline:
    timeline = Timeline()
    tape.start(timeline, cublas_workspace(GPU))
    tensors = []
    for shape, dtype, has_gradient in parameters:
        array = new(shape, dtype, "weight")
        leaf = Leaf(array, "gradients")
        leaf.grad = new(shape, dtype, "gradient") if has_gradient else None
        tensors.append(Tensor(array, leaf))
    states, scaler = States(OPTIMIZERS[w.optimizer], [tensors], Habits(w.momentum)), Scaler() if scaled else None
    marks = [Storage(7, "mark")]
    if scaler is not None:
        scaler.scale(Tensor(new((), "fp32", "loss")))
    for _ in range(steps):
        if clipped:
            if scaler is not None:
                scaler.unscale()
            total = clip(tensors, {leaf: 1 for leaf in (tensor.node for tensor in tensors) if isinstance(leaf, Leaf)})
            marks.append(Storage(7, "mark"))
            del total
        if scaler is None:
            states.step()
        else:
            scaler.step(states)
            scaler.update()
        marks.append(Storage(7, "mark"))
    states.zero_grad("none")
    marks.append(Storage(7, "mark"))
    timeline.events = timeline.events[:]
    return timeline


def _there(w: Workload, parameters: Parameters, *, steps: int, clipped: bool, scaled: bool) -> Timeline:
    tracer = Tracer(Timeline(), Place(), GPU)
    tracer.place.enter("optimizer")
    with tracer:
        module = torch.nn.Module()
        for at, (shape, dtype, has_gradient) in enumerate(parameters):
            parameter = torch.nn.Parameter(torch.empty(shape, dtype=DTYPES[dtype], device="meta"))
            if has_gradient:
                parameter.grad = torch.empty(shape, dtype=DTYPES[dtype], device="meta")
            module.register_parameter(f"p{at}", parameter)
        optimizer = make_optimizer(module, w)
        scaler = make_scaler(w, "meta") if scaled else None
        marks = [_mark()]
        if scaler is not None:
            scaler.scale(torch.empty((), device="meta"))
        for _ in range(steps):
            if clipped:
                if scaler is not None:
                    scaler.unscale_(optimizer)
                total = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                marks.append(_mark())
                del total
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            marks.append(_mark())
        optimizer.zero_grad()
        del parameter
        marks.append(_mark())
        tracer.close()
    return tracer.timeline


def _mark() -> torch.Tensor:
    return torch.empty(7, dtype=torch.uint8, device="meta")


def _assert_same(w: Workload, parameters: Parameters, **how: Any) -> None:
    difference = first_difference(_here(w, parameters, **how), _there(w, parameters, **how), ("tape", "torch"))
    assert difference is None, f"{parameters}\n{difference}"


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
def test_two_steps_allocate_and_free_what_torchs_do(options: dict[str, Any], clipped: bool) -> None:
    w = workload_of(**options)
    with _like_cuda(w):
        _assert_same(w, _taken(GIVEN, w), steps=2, clipped=clipped, scaled=False)


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
def test_so_do_steps_of_a_scaler(options: dict[str, Any], clipped: bool) -> None:
    w = workload_of(dtype="fp32", amp="fp16", **options)
    with _like_cuda(w):
        _assert_same(w, [given for given in GIVEN if given[1] == "fp32"], steps=2, clipped=clipped, scaled=True)


_PARAMETER: Final = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), st.sampled_from(["fp32", "bf16"]), st.booleans()
) | st.just(((65, 64), "bf16", True))


@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
def test_whatever_is_trained_is_stepped_as_torch_does_it(options: dict[str, Any]) -> None:
    w = workload_of(**options)

    @settings(max_examples=10)
    @given(st.lists(_PARAMETER, min_size=1, max_size=6).filter(lambda drawn: any(each[2] for each in drawn)))
    def check(parameters: Parameters) -> None:
        _assert_same(w, _taken(parameters, w), steps=2, clipped=True, scaled=False)

    with _like_cuda(w):
        check()


def _leaf(dtype: str) -> Leaf:
    return Leaf(new((2,), dtype, "weight"), "gradients")


def test_the_dtype_met_last_comes_first() -> None:
    tape.start(Timeline(), 0)
    leaves = [_leaf(dtype) for dtype in ("fp32", "bf16", "fp32", "fp16")]
    assert [[leaf.array.dtype for leaf in group] for group in by_dtype(leaves)] == [["fp16"], ["bf16"], ["fp32"] * 2]


def test_prepared_states_are_those_that_a_step_leaves() -> None:
    for name, options in ROWS.items():
        kept = []
        for prepared in (True, False):
            tape.start(Timeline(), 0)
            leaves = [_leaf("fp32"), _leaf("bf16")]
            for leaf in leaves:
                leaf.grad = new((2,), leaf.array.dtype, "gradient")
            states = States(OPTIMIZERS[options["optimizer"]], [[Tensor(leaf.array, leaf) for leaf in leaves]],
                            Habits(options.get("momentum", 0.0)))  # fmt: skip
            (states.prepare if prepared else states.step)()
            kept.append([{name: array.shape for name, array in kept.items()} for kept in states.kept.values()])
        assert kept[0] == kept[1], name


def test_zeroed_gradients_stay() -> None:
    tape.start(Timeline(), 0)
    leaf = _leaf("fp32")
    leaf.grad = new((2,), "fp32", "gradient")
    states = States(OPTIMIZERS["sgd"], [[Tensor(leaf.array, leaf)]])
    states.zero_grad("zero")
    assert leaf.grad is not None
    states.zero_grad("none")
    assert leaf.grad is None
