"""One layer in K checkpointed: estimate writes what transformers does."""

import pytest

from memcalc import estimating
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "bloom"])
def test_one_layer_in_two_is_recomputed(model_type: str, reentrant: bool) -> None:
    assert_alike(tiny(model_type, "lora", checkpointing=True, reentrant=reentrant, checkpoint_every=2))


def test_fewer_checkpoints_keep_more_alive() -> None:
    every = [
        estimating.peak_live(tiny("llama", "full", checkpointing=True, checkpoint_every=k, batch=8, seq_len=64))
        for k in (1, 2)
    ]
    assert every[0] < every[1]
