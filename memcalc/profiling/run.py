"""Load, history, the measured step, and further steps against the clock."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from memcalc.profiling import weights
from memcalc.profiling.case import Case
from memcalc.profiling.device import Device
from memcalc.profiling.meter import Meter
from memcalc.realize import loops
from memcalc.realize.loading import build_base, load
from memcalc.workload import Workload


class Run:
    """One workload on one device, as far as it gets."""

    def __init__(self, workload: Workload, case: Case, device: Device, look: Callable[[], None]) -> None:
        self.workload, self.case, self.device = workload, case, device
        self.meter = Meter(device.memory, look)
        self.model: Any = None
        self._step: Callable[[], None]

    def measured_step(self) -> None:
        """Everything up to the end of the step whose memory counts."""
        workload, meter, place = self.workload, self.meter, self.device.torch_name
        base = build_base(workload, place)
        if self.case.pretrained:
            weights.refuse_copies(base, workload)
            weights.fill(base, workload.model)
        self.model, own = load(base, workload, place, meter)
        del base
        meter.know_loaded(self.model, own)
        if workload.training:
            training = loops.Training(self.model, workload, place, meter)
            meter.optimizer = training.optimizer
            self._step = lambda: training.step(workload.seq_len)
            training.run()
        else:
            self._step = lambda: loops.infer(self.model, workload, place, meter)
            self._step()
        meter.finish()

    def time_steps(self) -> dict[str, Any]:
        """Seconds of each timed step, their median and tokens a second; the device is done when a clock is read."""
        seconds = []
        for _ in range(self.case.warmup):
            self._step()
        for _ in range(self.case.steps):
            self.device.memory.synchronize()
            began = time.perf_counter()
            self._step()
            self.device.memory.synchronize()
            seconds.append(time.perf_counter() - began)
        tokens = self.workload.batch * self.workload.seq_len * self.workload.grad_accum
        middle = median(seconds)
        return {"step_seconds": middle, "step_seconds_each": seconds, "tokens_per_second": tokens / middle}
