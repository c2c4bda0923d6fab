import time
from itertools import chain, repeat

from memcalc.profiling.facts import Facts, Unmeasurable
from memcalc.profiling.sampler import Sampler


def test_the_highest_of_all_looks_is_kept() -> None:
    values = chain((3, 9, 4), repeat(5))
    facts = Facts()
    with Sampler({"used": lambda: next(values)}, interval=0.001) as sampler:
        time.sleep(0.05)
    sampler.report(facts)
    assert facts.values == {"used": 9}
    assert sampler.looks > 3


def test_a_figure_that_is_refused_once_is_no_figure() -> None:
    def refusing() -> int:
        raise Unmeasurable("no rights")

    facts = Facts()
    with Sampler({"used": lambda: 1, "ours": refusing}, interval=10) as sampler:
        sampler.look()
    sampler.report(facts)
    assert facts.values == {"used": 1, "ours": None}
    assert facts.unavailable == {"ours": "no rights"}


def test_a_surprise_is_a_reason_and_not_a_lower_figure() -> None:
    values = iter((5,))
    facts = Facts()
    with Sampler({"used": lambda: next(values)}, interval=10) as sampler:
        pass
    sampler.report(facts)
    assert facts.values == {"used": None}
