"""Both tiers on one workload: the same blocks, the same counts."""

from memcalc.comparing import first_difference
from memcalc.workload import Workload
from tests.producers import estimated, traced


def assert_alike(w: Workload) -> None:
    """Estimate's stream, counts and checkpoint are trace's."""
    mine, real = estimated(w), traced(w)
    difference = first_difference(mine.timeline, real.timeline, ("estimate", "trace"))
    assert difference is None, difference
    for field in ("total_params", "trainable_params", "checkpoint_bytes"):
        assert getattr(mine, field) == getattr(real, field), field
