"""States tensor by tensor against those that the real optimizers keep, on odd sizes too."""

from typing import Any, Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memcalc.errors import InvalidWorkload
from memcalc.optimizers import OPTIMIZERS, Trained
from memcalc.realize.optimizer import make_optimizer
from memcalc.tape.layouts import Shape
from memcalc.tracing import likeness
from memcalc.workload import Workload
from tests.step.test_optimizer import ROWS, workload_of
from tests.tape.side_by_side import DTYPES

SHAPES: Final = [(46145, 3), (129, 257), (4096,), (4095,), (7,), (3, 5, 6), (2, 2, 3, 4), (1,), (320, 320)]
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()} | {torch.uint8: "uint8"}

State = dict[str, tuple[tuple[int, ...], str]]


def _real(w: Workload, dtype: str, device: str) -> list[State]:
    """What the real optimizer keeps on the device after a step."""
    module = torch.nn.Module()
    for at, shape in enumerate(SHAPES):
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=DTYPES[dtype], device=device))
        parameter.grad = torch.zeros(shape, dtype=DTYPES[dtype], device=device)
        module.register_parameter(f"p{at}", parameter)
    optimizer = make_optimizer(module, w)
    optimizer.step()
    return [
        {name: (tuple(value.shape), NAMES[value.dtype]) for name, value in _tensors(optimizer.state[parameter]).items()}
        for parameter in module.parameters()
    ]


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Its tensors, but for a count of steps on the host."""
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and not (name == "step" and value.device.type == "cpu")
    }


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
def test_each_state_is_the_real_optimizers(options: dict[str, Any], dtype: str) -> None:
    w = workload_of(**options)
    row = OPTIMIZERS[w.optimizer]
    pytest.importorskip(row.package)
    if row.without_bf16 and dtype == "bf16":
        with pytest.raises(InvalidWorkload, match="bf16"):
            _real(w, dtype, "cpu")
        return
    expected: list[State] = []
    for shape in SHAPES:
        kept = {state.name: (state.shape, state.dtype) for state in row.states(Trained(shape, dtype))}
        if row.momentum and w.momentum:
            kept[row.momentum] = (shape, dtype)
        expected.append(kept)
    with likeness.libraries(None, w):  # paged ones are on a GPU only
        real = _real(w, dtype, "meta" if "paged" in w.optimizer else "cpu")
    without_step = [{name: state for name, state in kept.items() if name != "step"} for kept in expected]
    assert real == without_step


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name.startswith("paged")])
def test_large_paged_states_lie_in_managed_memory(optimizer: str) -> None:
    states = OPTIMIZERS[optimizer].states
    assert not any(state.paged for state in states(Trained((99_999,), "bf16")))
    paged = [state for state in states(Trained((100_000,), "bf16")) if state.paged]
    assert {state.name for state in paged} <= {"state1", "state2"}
    assert paged


_SHAPE: Final = st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple)


@given(_SHAPE, st.sampled_from(["fp32", "bf16", "fp16"]), st.booleans())
def test_fewer_bits_keep_no_more_and_paged_states_only_move(shape: Shape, dtype: str, spared: bool) -> None:
    def kept(name: str, paged: bool = False) -> int:
        states = OPTIMIZERS[name].states(Trained(shape, dtype, in_32_bits=spared))
        return sum(state.nbytes for state in states if not (paged and state.paged))

    for family in ("adamw", "ademamix", "lion"):
        few, many = f"{family}_8bit", "ademamix" if family == "ademamix" else f"{family}_32bit"
        assert kept(few) <= kept(f"paged_{family}_32bit")
        assert kept(f"paged_{few}") == kept(few)
        assert kept(f"paged_{few}", paged=True) <= kept(few)
        if many in OPTIMIZERS:
            assert kept(f"paged_{family}_32bit") == kept(many)
    assert kept("adafactor") <= kept("paged_adamw_32bit") + 4
    assert kept("lion_32bit") * 2 == kept("paged_adamw_32bit")


def test_trainer_spares_embeddings() -> None:
    states = OPTIMIZERS["adamw_8bit"].states
    assert [state.dtype for state in states(Trained((999, 64), "bf16", in_32_bits=True))] == ["fp32", "fp32"]
    assert {state.dtype for state in states(Trained((999, 64), "bf16"))} == {"uint8", "fp32"}
