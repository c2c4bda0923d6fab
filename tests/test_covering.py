import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.covering import Case, Cover, pairs

AXES = (("a0", "a1", "a2"), ("b0", "b1"), ("c0", "c1", "c2", "c3"), ("d0", "d1"))
EVERY_PAIR = {pair for case in itertools.product(*AXES) for pair in pairs(case)}


def drawn(cover: Cover) -> list[Case]:
    found = []
    while (case := cover.draw()) is not None:
        cover.ran(case)
        found.append(case)
    return found


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_every_pair_is_covered_by_few_cases(seed: int) -> None:
    found = drawn(Cover(AXES, lambda case: True, seed=seed))
    assert {pair for case in found for pair in pairs(case)} == EVERY_PAIR
    assert len(found) <= 17  # 12 at least, of 48


@settings(max_examples=20)
@given(st.sets(st.sampled_from(sorted(EVERY_PAIR)), max_size=6))
def test_a_pair_is_impossible_only_if_no_case_has_it(forbidden: set[tuple[tuple[int, str], tuple[int, str]]]) -> None:
    def possible(case: Case) -> bool:
        return not pairs(case) & forbidden

    cover = Cover(AXES, possible)
    covered = {pair for case in drawn(cover) for pair in pairs(case)}
    reachable = {pair for case in itertools.product(*AXES) if possible(case) for pair in pairs(case)}
    assert covered == reachable
    assert set(cover.impossible) == EVERY_PAIR - reachable


def test_a_case_that_was_refused_leaves_its_pairs_to_others_and_is_given_up_in_the_end() -> None:
    cover = Cover(AXES, lambda case: True)
    ran: list[Case] = []
    while (case := cover.draw()) is not None:
        if case[:2] == ("a0", "b0"):
            cover.refused()
        else:
            cover.ran(case)
            ran.append(case)
    assert ((0, "a0"), (1, "b0")) in cover.given_up
    assert {pair for case in ran for pair in pairs(case)} >= EVERY_PAIR - set(cover.given_up)


def test_the_same_seed_draws_the_same_cases() -> None:
    seed = random.Random().randrange(1000)
    assert drawn(Cover(AXES, lambda case: True, seed=seed)) == drawn(Cover(AXES, lambda case: True, seed=seed))
