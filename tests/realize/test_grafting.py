"""Modules of our own, over real tensors."""

import pytest

from memcalc import methods
from memcalc.comparing import first_difference
from memcalc.tracing.record import record
from tests.tiny import tiny
from tests.tracing.steps import steps_of

GRAFTED = [name for name in methods.names() if methods.load(name).METHOD().graft() is not None]


@pytest.mark.parametrize("method", GRAFTED)
def test_their_step_on_meta_is_that_of_real_tensors(method: str) -> None:
    w = tiny("gpt2", method, dtype="fp32", device="cpu", history="none")
    difference = first_difference(steps_of(record(w).timeline), steps_of(record(w, "cpu").timeline), ("meta", "cpu"))
    assert difference is None, difference
