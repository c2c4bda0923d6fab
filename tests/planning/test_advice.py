from memcalc.estimating import estimate
from memcalc.planning.advice import Advice, advise
from memcalc.planning.levers import PRICES
from memcalc.units import MIB
from memcalc.workload import Workload
from tests.tiny import tiny

BIG = {"batch": 8, "seq_len": 1024, "config_changes": {"vocab_size": 4000}}


def _advice(nbytes: int, method: str = "full", **options: object) -> tuple[Workload, Advice]:
    w = tiny("llama", method, gpu=f"{nbytes}B", **{**BIG, **options})
    return w, advise(w, estimate(w))


def _needs(method: str, **options: object) -> int:
    reserved = estimate(tiny("llama", method, **{**BIG, **options})).peak_reserved
    assert reserved is not None
    return reserved


def test_one_change_is_enough_where_little_is_missing() -> None:
    w, ways = _advice(_needs("full", dtype="fp32") - 2 * MIB, dtype="fp32")
    assert ways.singles
    assert not ways.together
    prices = [PRICES.index(effect.lever.price) for effect in ways.singles]
    assert prices == sorted(prices)
    for effect in ways.singles:
        assert estimate(effect.workload).fits(f"{w.gpu.memory_bytes}B")
    assert len({effect.lever.name for effect in ways.singles}) == len(ways.singles)


def test_several_together_are_all_needed() -> None:
    least = min(_needs("full", dtype="fp32", checkpointing=True, batch=1), _needs("full", batch=1))
    w, ways = _advice(least - MIB, dtype="fp32")
    assert not ways.singles
    assert ways.together
    assert ways.together[-1].footprint.fits(f"{w.gpu.memory_bytes}B")
    assert not any(effect.footprint.fits(f"{w.gpu.memory_bytes}B") for effect in ways.together[:-1])


def test_cheaper_changes_together_come_before_a_dear_one_alone() -> None:
    chunks = {"loss": "chunked-nll"}
    fitting = _needs("lora", checkpointing=True, batch=1, **chunks)
    assert fitting < min(_needs("lora", checkpointing=True, **chunks), _needs("lora", batch=1, **chunks))
    w, ways = _advice(fitting, "lora", **chunks)
    assert {effect.lever.name for effect in ways.together} == {"gradient checkpointing", "a smaller micro-batch"}
    assert {effect.lever.price for effect in ways.singles} <= {"precision", "capacity", "context"}
    assert ways.together[-1].footprint.fits(f"{w.gpu.memory_bytes}B")


def test_where_nothing_helps_the_least_is_told() -> None:
    w, ways = _advice(MIB)
    assert not ways.singles
    assert not ways.together
    base = estimate(w).peak_reserved
    assert base is not None
    assert ways.smallest.peak_reserved is not None
    assert MIB < ways.smallest.peak_reserved < base
