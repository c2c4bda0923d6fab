"""A model is declared once, however often a sweep asks."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.step import declaring
from memcalc.tape.builder import Builder
from memcalc.workload import Workload


def test_a_sweep_over_the_batch_declares_its_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = declaring._declare_once

    def counted(*asked: Any) -> Builder:
        runs.append(asked)
        return run(*asked)

    monkeypatch.setattr(declaring, "_declare_once", counted)
    declaring._latest.clear()
    for batch in (1, 2, 3):
        estimating.peak_live(Workload.of("llama-3.1-8b", "lora", batch=batch))
    assert len(runs) == 2  # without the method, and under it
