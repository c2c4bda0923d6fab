import contextlib

import pytest

from memcalc import methods
from memcalc.errors import InvalidWorkload
from memcalc.estimating import estimate
from memcalc.importers import peft
from memcalc.planning.levers import LEVERS, PRICES, changed, effects, flags
from memcalc.workload import Workload
from tests.tiny import TINY, tiny

WASTEFUL = tiny(
    "llama", "full", dtype="fp32", optimizer="adamw_torch", loop="plain", zero_grad="zero", attention="eager",
    batch=4, seq_len=256,
)  # fmt: skip


def _pulled(w: Workload) -> set[str]:
    return {effect.lever.name for effect in effects(w, estimate(w))}


def test_every_lever_is_pulled_somewhere() -> None:
    cases = (WASTEFUL, tiny("llama", "qlora", double_quant=False), tiny("llama", "lora"))
    assert set().union(*map(_pulled, cases)) == {lever.name for lever in LEVERS}


def test_what_is_saved_is_the_difference_of_two_estimates() -> None:
    base = estimate(WASTEFUL)
    found = effects(WASTEFUL, base)
    assert [effect.saved for effect in found] == sorted((effect.saved for effect in found), reverse=True)
    for effect in found[:4]:
        again = estimate(changed(WASTEFUL, effect.options))
        assert base.peak_reserved is not None
        assert again.peak_reserved is not None
        assert effect.saved == base.peak_reserved - again.peak_reserved


def test_prices_are_known_and_no_two_levers_share_a_name() -> None:
    assert {lever.price for lever in LEVERS} == set(PRICES)
    assert len({lever.name for lever in LEVERS}) == len(LEVERS)


@pytest.mark.parametrize("method", methods.names())
def test_a_lever_that_is_pulled_is_there_no_more(method: str) -> None:
    """Else advice would go round in circles."""
    w = tiny("bloom", method)
    for lever in LEVERS:
        for options in lever.changes(w):
            with contextlib.suppress(InvalidWorkload):  # no change then
                assert options not in list(lever.changes(changed(w, options))), lever.name


def test_options_read_as_on_the_command_line() -> None:
    assert flags({"batch": 2, "checkpointing": True, "use_cache": False, "target": ["a", "b"]}) == (
        "--batch 2 --checkpointing --no-use-cache --target a,b"
    )


def test_a_method_that_a_config_describes_keeps_it() -> None:
    from memcalc.catalog.find import Model

    w = peft.workload(Model("tiny", TINY["llama"], "test"), {"peft_type": "IA3", "target_modules": ["k_proj"]})
    other = changed(w, {"batch": 3})
    assert (other.batch, other.method_name, other.method) == (3, "ia3", w.method)


def test_on_the_cpu_what_is_allocated_counts() -> None:
    w = tiny("llama", "lora", device="cpu", dtype="fp32", seq_len=256)
    assert effects(w, estimate(w))[0].saved > 0
