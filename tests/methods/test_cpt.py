"""CPT: what trains and is saved, which tokens it counts, what it cannot go with, and its stream."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.methods.cpt import Cpt
from memcalc.recording import footprint_of
from tests.methods.likeness import assert_alike
from tests.tiny import tiny


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_what_is_added_to_the_frozen_tokens_trains_and_their_sum_is_saved(mode: str) -> None:
    recording = estimating.record(tiny("llama", "cpt", virtual_tokens=7, mode=mode))
    bare = estimating.record(tiny("llama", "full", mode=mode))
    assert recording.trainable_params == 7 * 64
    assert recording.total_params == bare.total_params + 2 * 7 * 64
    assert recording.checkpoint_bytes == 4 * 7 * 64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpt_tokens_type_mask": "1,2,3,4", "virtual_tokens": 5}, "has 4 items for 5 tokens"),
        ({"cpt_token_ids": "1,-2"}, "each item is a number, from 0"),
        ({"loss": "chunked-nll"}, "--loss chunked-nll cannot go with --method cpt"),
    ],
)
def test_what_it_cannot_go_with_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidWorkload, match=said):
        tiny("llama", "cpt", **options)


def test_without_a_label_among_its_tokens_peft_finds_none_and_trace_runs_it() -> None:
    with pytest.raises(NotModelled, match="must end with a label"):
        tiny("llama", "cpt", cpt_tokens_type_mask="1,2,3", virtual_tokens=3)
    name, method = peft.method_of({"peft_type": "CPT", "cpt_tokens_type_mask": [1, 2, 3], "cpt_token_ids": [0, 0, 0]})
    assert (name, type(method)) == ("cpt", peft.FromConfig)


def test_what_peft_saves_of_it_is_read_as_ours() -> None:
    name, method = peft.method_of(
        {
            "peft_type": "CPT", "num_virtual_tokens": 4, "token_dim": 64, "num_layers": 3, "num_attention_heads": 4,
            "num_transformer_submodules": 1, "cpt_token_ids": [7, 8, 9, 3], "cpt_mask": [1, 1, 1, 1],
            "cpt_tokens_type_mask": [1, 2, 3, 4], "opt_weighted_loss_type": "decay", "modules_to_save": None,
        }
    )  # fmt: skip
    types, tokens = ("1", "2", "3", "4"), ("7", "8", "9", "3")
    assert (name, method) == ("cpt", Cpt(4, tokens, types, opt_weighted_loss_type="decay"))
    assert method.positions_before == 4


def test_three_layers_tell_the_peak_of_nine() -> None:
    w = tiny("llama", "cpt", config_changes={"num_hidden_layers": 9})
    assert estimating.peak_live(w) == footprint_of(w, estimating.record(w), "estimate").peak_live


def test_a_label_alone_never_moves() -> None:
    assert_alike(tiny("llama", "cpt", virtual_tokens=1))


def test_before_the_first_step_nothing_has_moved() -> None:
    w = tiny("llama", "cpt", virtual_tokens=5, history="none", grad_accum=2)
    assert_alike(w)
    assert ("prompt_encoder.default", "clamp") not in estimating.record(w).timeline.labels
    stepped = tiny("llama", "cpt", virtual_tokens=5)
    assert ("prompt_encoder.default", "clamp") in estimating.record(stepped).timeline.labels


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "gemma"])
@pytest.mark.parametrize(
    "options",
    [
        {"padded": True, "batch": 1, "loop": "plain", "use_cache": True, "cpt_token_ids": "5,6,7,8,9,9"},
        {"checkpointing": True, "padded": True, "cpt_tokens_type_mask": "4,1,2,3,4,8", "virtual_tokens": 6},
        {"checkpointing": True, "reentrant": True, "dtype": "fp32", "amp": "bf16"},
        {"mode": "inference", "quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "cpt", **options))
