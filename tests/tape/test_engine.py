from hypothesis import given, settings

from tests.tape.programs import *
from tests.tape.side_by_side import cuda_like


def test_random():
    @settings(max_examples=200, deadline=None)
    @given(programs())
    def check(p): assert_same(p)
    with cuda_like(): check()
def test_ck():
    @settings(max_examples=200, deadline=None)
    @given(programs(layer=True))
    def check(p): assert_same(p, "non-reentrant")
    with cuda_like(): check()
def test_re():
    @settings(max_examples=200, deadline=None)
    @given(programs(layer=True))
    def check(p): assert_same(p, "reentrant")
    with cuda_like(): check()
