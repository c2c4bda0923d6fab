"""One case to profile: a workload, and how it is measured."""

from dataclasses import dataclass

from memcalc.workload import Workload


@dataclass(frozen=True)
class Case:
    """What the measuring process is told."""

    workload: Workload
    pretrained: bool = False  # the checkpoint's weights, not random ones
    warmup: int = 1  # further steps before those that are timed
    steps: int = 3  # further steps that are timed
    top: int = 0  # so many of the largest blocks alive at the peak
    shared: bool = True  # measure although others use the device
    snapshot: str | None = None  # file for PyTorch's memory viewer
