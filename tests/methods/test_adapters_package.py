"""Adapter methods hold as many parameters as those of the `adapters` package, which has them as its own modules.

Trainable counts that adapters 1.3.0 reports (with transformers 4.57.6) for a llama of hidden size 64, 2 layers and
4 heads, under its named configs.
"""

from typing import Any, Final

import pytest

from memcalc import estimating
from tests.tiny import tiny

COUNTS: Final[list[tuple[str, str, dict[str, Any], int]]] = [("double_seq_bn", "houlsby", {}, 2_320)]


@pytest.mark.parametrize(("config", "method", "options", "trainable"), COUNTS)
def test_the_default_trains_what_the_packages_config_trains(
    config: str, method: str, options: dict[str, Any], trainable: int
) -> None:
    w = tiny("llama", method, config_changes={"num_hidden_layers": 2, "num_key_value_heads": 4}, **options)
    assert estimating.record(w).trainable_params == trainable, config
