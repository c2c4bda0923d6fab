"""Figures that only momentary looks can give: read again and again on a thread, the highest of each kept."""

import threading
from collections.abc import Callable, Mapping
from typing import Self

from memcalc.profiling.facts import Facts

INTERVAL = 0.01  # seconds


class Sampler:
    """The highest value of each figure while it runs; `look` may be called in between, where a phase ends."""

    def __init__(self, figures: Mapping[str, Callable[[], int]], interval: float = INTERVAL) -> None:
        self._figures, self._interval = figures, interval
        self._highest: dict[str, int] = {}
        self._refusals: dict[str, str] = {}
        self.looks = 0
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="memcalc sampler", daemon=True)

    def __enter__(self) -> Self:
        self.look()
        if self._highest:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.look()

    def look(self) -> None:
        """Read every figure that has not been refused."""
        with self._one_at_a_time:
            self.looks += 1
            for name, figure in self._figures.items():
                if name in self._refusals:
                    continue
                try:
                    self._highest[name] = max(self._highest.get(name, 0), figure())
                except Exception as refusal:  # noqa: BLE001 - a thread that dies would leave a figure that is too low
                    self._refusals[name] = str(refusal)

    def report(self, facts: Facts) -> None:
        """Hand over the highest values; a figure refused at any look has none."""
        for name in self._figures:
            if name in self._refusals:
                facts.missing(name, self._refusals[name])
            else:
                facts.values[name] = self._highest[name]

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.look()
