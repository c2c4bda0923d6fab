"""Adapter methods hold as many parameters as those of the `adapters` package, which has them as its own modules.

Trainable counts that adapters 1.3.0 reports (with transformers 4.57.6) for a llama of hidden size 64, 2 layers and
4 heads, under its named configs.
"""

from typing import Final

import pytest

from memcalc import estimating
from tests.tiny import tiny

COUNTS: Final = [
    ("double_seq_bn", "houlsby", 2_320),
    ("seq_bn", "pfeiffer", 1_160),
    ("par_bn", "parallel_adapter", 8_384),
    ("mam", "mam", 267_360),
    ("unipelt", "unipelt", 171_024),
]


@pytest.mark.parametrize(("config", "method", "trainable"), COUNTS)
def test_the_default_trains_what_the_packages_config_trains(config: str, method: str, trainable: int) -> None:
    w = tiny("llama", method, config_changes={"num_hidden_layers": 2, "num_key_value_heads": 4})
    assert estimating.record(w).trainable_params == trainable, config
