"""From nothing to a model on the device: orders and dtypes that only the libraries know."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc import estimating
from memcalc.step.loading import Loaded, _natural
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.tiny import tiny, written

_PART: Final = st.one_of(
    st.sampled_from(["layers", "w", "w1", "w2", "w10", "mlp", "weight", "bias", "q_proj", "h12b"]),
    st.integers(0, 120).map(str),
)


@given(st.lists(st.lists(_PART, min_size=1, max_size=4).map(".".join), max_size=8, unique=True))
def test_weights_are_read_in_transformers_own_order(names: list[str]) -> None:
    from transformers.core_model_loading import dot_natural_key

    assert sorted(names, key=_natural) == sorted(names, key=dot_natural_key)


def _written(w: Workload) -> tuple[Timeline, Loaded]:
    timeline, _, loaded = estimating.write(w, *estimating.family_of(w))
    return timeline, loaded


@pytest.mark.parametrize("model_type", written())
def test_norms_and_biases_decay_in_a_group_of_their_own_as_in_trainer(model_type: str) -> None:
    from memcalc.realize.model import build
    from memcalc.realize.optimizer import make_optimizer

    w = tiny(model_type, "full")
    groups = _written(w)[1].groups(w)
    real = make_optimizer(build(w, "meta"), w).param_groups
    assert [[x.shape for x in group] for group in groups] == [[tuple(x.shape) for x in g["params"]] for g in real]


def _load(timeline: Timeline) -> list[tuple[int, str, str]]:
    """Births of the phase "load": bytes, category, label."""
    end = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    rows = [event for event in timeline.events[:end] if event >= 0]
    return [(timeline.nbytes[row], timeline.categories[row], timeline.label(row)) for row in rows]


def test_one_warm_up_block_of_the_weights_size_comes_first_and_goes_at_once() -> None:
    timeline, loaded = _written(tiny("llama", "full", load="device-map"))
    total = sum(_count(declared.shape) for declared in loaded.model.base.values() if declared.kind != "buffer")
    assert _load(timeline)[0][::2] == (2 * total, "warm-up")
    assert timeline.events[:2] == [0, ~0]


def test_the_warm_up_leaves_a_part_of_the_card_free() -> None:
    timeline, _ = _written(tiny("llama", "full", load="device-map", gpu="1288491000B"))
    assert timeline.nbytes[0] == int((1288491000 - 1.2 * 2**30) // 2) * 2


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


@pytest.mark.parametrize(
    ("options", "adapters"),
    [({"dtype": "fp32"}, ["fp32"]), ({}, ["bf16", "fp32"]), ({"autocast_adapter_dtype": False}, ["bf16"])],
    ids=["fp32", "bf16", "as the base"],
)
def test_adapters_are_made_in_the_bases_dtype_then_raised(options: dict[str, Any], adapters: list[str]) -> None:
    sizes = [nbytes for nbytes, category, _ in _load(_written(tiny(**options))[0]) if category == "adapter"]
    item = {"fp32": 4, "bf16": 2}
    counts = [8 * 64, 8 * 64, 8 * 64, 8 * 32] * 3  # A and B of q_proj (64 x 64) and v_proj (32 x 64), in three layers
    assert sizes == [count * item[dtype] for dtype in adapters for count in counts]


def test_the_last_layer_stands_for_those_that_are_not_written() -> None:
    w = tiny("llama", "lora")
    family, c = estimating.family_of(w)
    loaded = estimating.write(w, family, c, depth=10)[2]
    names = [name for name in loaded.trained if name.startswith("model.layers.2.")]
    assert {loaded.times(name) for name in names} == {8}
    assert {loaded.times(name) for name in loaded.trained if name not in names} == {1}


@pytest.mark.parametrize("quant", ["nf4", "fp4"])
def test_the_cache_is_emptied_once_after_k_bit_preparation(quant: str) -> None:
    timeline, _ = _written(tiny(quant=quant, history="none"))
    assert [mark.kind for mark in timeline.marks][:3] == ["phase", "empty_cache", "phase_end"]
