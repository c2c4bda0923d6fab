"""WaveFT: a few entries train, and the whole update is transformed anew in every forward."""

from collections.abc import Callable
from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


def test_the_entries_train_whatever_the_wavelet_is() -> None:
    for wavelet in ("db1", "coif2"):
        w = Workload.of("1.3b", "waveft", seq_len=16, wavelet_family=wavelet)
        assert estimating.record(w).trainable_params == 24 * 2592


def test_its_filters_are_as_long_as_pefts_and_its_padding_makes_up_for_them() -> None:
    from peft.tuners.waveft.constants import WAVELET_REDUCTIONS
    from peft.tuners.waveft.wavelet import Wavelet

    from memcalc.methods.waveft import _FILTERS

    for name, length in _FILTERS.items():
        assert Wavelet(name).rec_len == length
        assert WAVELET_REDUCTIONS[name] == (length - 2, length - 2)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "target": "all-linear", "wavelet_family": "db2"},
        {"amp": "bf16", "checkpointing": True, "reentrant": True, "loop": "plain", "bias": "all"},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "use_idwt": False},
        {"batch": 1, "mode": "inference", "autocast_adapter_dtype": False, "wavelet_family": "sym4"},
        {"quant": "nf4", "target": "all-linear"},
        {"quant": "int8", "dtype": "fp16"},
        {"device": "cpu", "checkpointing": True},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "waveft", **options))


@pytest.mark.parametrize("wavelet", ["db1", "db3"])
def test_an_odd_width_is_cut_from_an_even_one(wavelet: str) -> None:
    odd = {"intermediate_size": 175}
    assert_alike(tiny("llama", "waveft", wavelet_family=wavelet, target=("gate_proj", "down_proj"), config_changes=odd))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_more_entries_than_the_weight_has_are_refused(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(InvalidWorkload, match="peft refuses this"):
        producer(tiny("llama", "waveft", n_frequency=64 * 64 + 1))
