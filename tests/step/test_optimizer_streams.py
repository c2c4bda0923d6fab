"""Every optimizer in a whole run: estimate's stream is trace's, and three layers' peak that of all."""

from typing import Any, Final

import pytest

from memcalc.comparing import first_difference
from memcalc.estimating import peak_live
from memcalc.estimating import record as estimated
from memcalc.optimizers import OPTIMIZERS
from memcalc.recording import footprint_of
from memcalc.tracing.record import record as traced
from memcalc.workload import Workload
from tests.tiny import tiny

LAYERS: Final = {"llama": "num_hidden_layers", "bloom": "n_layer"}
RUNS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "llama full bf16": ("llama", "full", {"dtype": "bf16"}),
    "bloom full fp32": ("bloom", "full", {"dtype": "fp32", "loop": "plain"}),
    "bloom lora fp16": ("bloom", "lora", {"dtype": "fp32", "amp": "fp16", "bias": "all"}),
}


_BNB: Final = [name for name, row in OPTIMIZERS.items() if row.package == "bitsandbytes"]
EACH: Final = [
    *((name, run) for name, row in OPTIMIZERS.items() if not (name in _BNB or row.projects) for run in RUNS),
    *((name, list(RUNS)[at % 3]) for at, name in enumerate(_BNB)),  # whose states are one function's
]


def _run(name: str, optimizer: str, layers: int) -> Workload:
    pytest.importorskip(OPTIMIZERS[optimizer].package)
    model_type, method, options = RUNS[name]
    if OPTIMIZERS[optimizer].without_bf16 and options["dtype"] == "bf16":
        options = {**options, "dtype": "fp16"}
    changes = {LAYERS[model_type]: layers}
    return tiny(model_type, method, config_changes=changes, optimizer=optimizer, batch=1, seq_len=8, **options)


@pytest.mark.parametrize(("optimizer", "run"), EACH, ids=[", ".join(one) for one in EACH])
def test_a_run_allocates_and_frees_what_the_real_one_does(optimizer: str, run: str) -> None:
    w = _run(run, optimizer, layers=1)
    mine, real = estimated(w), traced(w)
    difference = first_difference(mine.timeline, real.timeline, ("estimate", "trace"))
    assert difference is None, difference
    assert footprint_of(w, mine, "estimate").at_peak == footprint_of(w, real, "trace").at_peak
    assert mine.warnings == real.warnings


@pytest.mark.parametrize(
    ("method", "options"), [("lora", {"modules_to_save": "embed_tokens"}), ("prompt_tuning", {"virtual_tokens": 100})]
)
def test_embeddings_that_a_method_adds_are_spared_too(method: str, options: dict[str, Any]) -> None:
    w = tiny("llama", method, config_changes={LAYERS["llama"]: 1}, optimizer="adamw_8bit", seq_len=8, **options)
    difference = first_difference(estimated(w).timeline, traced(w).timeline, ("estimate", "trace"))
    assert difference is None, difference


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop", "adafactor"])
def test_on_the_cpu_too(optimizer: str) -> None:
    w = tiny("bloom", "full", config_changes={"n_layer": 1}, optimizer=optimizer, device="cpu", batch=1, seq_len=8)
    difference = first_difference(estimated(w).timeline, traced(w).timeline, ("estimate", "trace"))
    assert difference is None, difference


@pytest.mark.parametrize(("optimizer", "run"), EACH, ids=[", ".join(one) for one in EACH])
def test_three_layers_tell_the_peak_of_nine(optimizer: str, run: str) -> None:
    w = _run(run, optimizer, layers=9)
    assert peak_live(w) == footprint_of(w, estimated(w), "estimate").peak_live
