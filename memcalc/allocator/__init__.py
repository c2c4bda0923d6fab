"""The CUDA caching allocator, replayed over a timeline: what is allocated, what is reserved.

    replay(timeline).peak_reserved

The replay knows no device limit: nothing is ever retried, freed for room or garbage collected.
"""

from memcalc.allocator import segments
from memcalc.allocator.levels import Levels, Replay, cpu_replay, live_levels, measure
from memcalc.allocator.settings import DEFAULT, AllocatorSettings, parse_alloc_conf
from memcalc.timeline import Timeline

__all__ = ["AllocatorSettings", "Levels", "Replay", "cpu_replay", "live_levels", "parse_alloc_conf", "replay"]


def replay(timeline: Timeline, settings: AllocatorSettings = DEFAULT, *, descending: bool = True) -> Replay:
    """The timeline's blocks as the CUDA caching allocator places them.

    `descending`: each cudaMalloc returns a lower address than the ones before, as seen on a T4, where reserved bytes
    are met so and missed by up to 9 % the other way. Expandable segments have one address space, so no order.
    """
    rounded = settings.rounded(timeline.nbytes)
    if settings.expandable_segments:
        from memcalc.allocator import expandable  # few ask for it, and every start would pay

        sizes, reserved = expandable.place(timeline, rounded, settings)
    else:
        sizes, reserved = segments.place(timeline, rounded, settings, descending=descending)
    return measure(timeline, sizes, rounded, reserved)
