import memcalc
from memcalc.units import GIB
from memcalc.verdict import Verdict
from tests.tiny import tiny


def test_a_verdict_is_true_where_nothing_is_left_over_and_says_so_in_words() -> None:
    tight = Verdict("A", 2 * GIB, 2 * GIB, context_known=True)
    over = Verdict("A", 3 * GIB, 2 * GIB, context_known=True)
    assert tight
    assert not over
    assert (tight.margin, over.margin) == (0, -GIB)
    assert str(tight) == "fits on A: 0 GiB to spare"
    assert repr(over) == "does NOT fit on A: 1.00 GiB too much"


def test_the_example_in_its_docstring_is_true() -> None:
    verdict = memcalc.estimate("llama-3.1-8b", method="qlora", batch=8).fits("rtx4090")
    assert repr(verdict) in (Verdict.__doc__ or "")
    assert not verdict


def test_a_footprint_says_what_a_verdict_holds() -> None:
    footprint = memcalc.estimate(tiny())
    verdict = footprint.fits("1GiB")
    assert verdict.gpu == "1.00 GiB"
    assert verdict.needed == footprint.peak_reserved
    assert not verdict.context_known
    assert footprint.margin("1GiB") == verdict.margin
