"""Every file in families/ against transformers' own model, on meta: a new file is tested as it is."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest
import torch

from memcalc import estimating, families
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload
from memcalc.families import Family
from memcalc.step.loading import Loaded
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.producers import estimated, traced
from tests.tiny import TINY, config, tiny, written

FAMILIES: Final = written()
_FAMILY: Final = pytest.mark.parametrize("model_type", FAMILIES)

# Its model makes rotary embeddings for a Python set of layer types: which of two equal blocks is made first is
# decided by the process's hash seed, so blocks are told apart by their size alone.
# Source: transformers 5.24.0, models/gemma3/modeling_gemma3.py, Gemma3TextModel.forward.
_IN_ANY_ORDER: Final = {"gemma3_text"}

# What may differ from one model of a family to the next. A change whose key a family's class has not is left out.
CHANGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "not tied": {"tie_word_embeddings": False},
    "biases everywhere": {"attention_bias": True, "mlp_bias": True, "use_bias": True, "bias": True},
    "one K/V head": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 40},
    "one layer": {"num_hidden_layers": 1, "n_layer": 1, "layer_types": None},
}


def _changed(model_type: str, change: str) -> dict[str, Any]:
    known = _known_keys(model_type)
    return {key: value for key, value in CHANGES[change].items() if key in known}


@cache
def _known_keys(model_type: str) -> frozenset[str]:
    from transformers import AutoConfig

    return frozenset(AutoConfig.for_model(model_type).to_dict()) | frozenset(config(model_type))


def _written(w: Workload) -> Loaded:
    return estimating.write(w, *estimating.family_of(w))[2]


def _real(w: Workload) -> Any:
    from memcalc.realize.model import build

    return build(w, "meta")


@_FAMILY
@pytest.mark.parametrize("change", CHANGES)
def test_its_parameters_are_the_real_ones_by_name_shape_and_order(model_type: str, change: str) -> None:
    changes = _changed(model_type, change)
    if CHANGES[change] and not changes:
        pytest.skip("the family's config class has no such key")
    w = tiny(model_type, "full", mode="inference", config_changes=changes)
    model, loaded = _real(w), _written(w)
    mine = [(name, declared.shape) for name, declared in loaded.model.base.items() if declared.kind != "buffer"]
    assert mine == [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    recording = estimated(w)
    assert recording.total_params == sum(parameter.numel() for parameter in model.parameters())
    assert recording.checkpoint_bytes == 2 * recording.total_params


@_FAMILY
def test_its_buffers_are_the_real_ones(model_type: str) -> None:
    w = tiny(model_type, "full", mode="inference")
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "int64", torch.bool: "bool"}
    mine = {
        name: (declared.shape, declared.dtype or w.dtype)
        for name, declared in _written(w).model.base.items()
        if declared.kind == "buffer"
    }
    assert mine == {name: (tuple(x.shape), names[x.dtype]) for name, x in _real(w).named_buffers()}


@_FAMILY
def test_full_fine_tuning_trains_every_parameter_once(model_type: str) -> None:
    recording = estimated(tiny(model_type, "full", dtype="fp32"))
    assert recording.trainable_params == recording.total_params
    assert recording.checkpoint_bytes == 4 * recording.total_params


@_FAMILY
@pytest.mark.parametrize(
    "options",
    [
        {"method": "full", "dtype": "fp32", "amp": "bf16", "padded": True},
        {"method": "lora", "target": "all-linear", "checkpointing": True, "loop": "plain"},
    ],
    ids=["full", "lora"],
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    w = tiny(model_type, options["method"], **{name: options[name] for name in options if name != "method"})
    mine, theirs = estimated(w).timeline, traced(w).timeline
    if model_type in _IN_ANY_ORDER:
        assert _gaps(mine) == _gaps(theirs)
    else:
        difference = first_difference(mine, theirs, ("estimate", "trace"))
        assert difference is None, difference


def _gaps(timeline: Timeline) -> list[tuple[int, list[int]]]:
    """Each birth's bytes, and the bytes that die before the next one."""
    gaps: list[tuple[int, list[int]]] = [(0, [])]
    for event in timeline.events:
        if event >= 0:
            gaps.append((timeline.nbytes[event], []))
        else:
            gaps[-1][1].append(timeline.nbytes[~event])
    return [(nbytes, sorted(dead)) for nbytes, dead in gaps]


@_FAMILY
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash"])
def test_it_offers_the_attentions_that_transformers_offers(model_type: str, attention: str) -> None:
    from transformers import AutoModelForCausalLM

    w = tiny(model_type, "full", mode="inference")
    real: Any = AutoModelForCausalLM._model_mapping[type(_real(w).config)]
    offered = {"eager": True, "sdpa": real._supports_sdpa, "flash": real._supports_flash_attn}[attention]
    name = {"flash": "flash_attention_2"}.get(attention, attention)
    assert (name in families.find(model_type).ATTENTIONS) == offered
    assert families.find(model_type).ATTENTIONS[0] == _real(w).config._attn_implementation


@_FAMILY
def test_an_attention_that_it_has_not_is_refused_by_name(model_type: str) -> None:
    family = families.find(model_type)
    if "sdpa" in family.ATTENTIONS:
        pytest.skip("it has them all")
    with pytest.raises(InvalidWorkload, match="--attention sdpa"):
        estimating.record(tiny(model_type, attention="sdpa"))


@_FAMILY
def test_a_longer_sequence_than_learned_positions_is_refused(model_type: str) -> None:
    w = tiny(model_type, "full", seq_len=257, mode="inference")
    if families.find(model_type).LEARNED_POSITIONS:
        with pytest.raises(InvalidWorkload, match="--seq-len 257"):
            estimating.record(w)
    else:
        estimating.record(w)


@pytest.mark.parametrize("model_type", families.names())
def test_its_file_says_all_that_a_family_says(model_type: str) -> None:
    family = families.find(model_type)
    for name in Family.__annotations__:
        assert hasattr(family, name), f"families/{model_type}.py defines no {name}"


def test_every_row_of_the_table_is_a_familys() -> None:
    assert set(TINY) <= set(families.names())


@pytest.mark.parametrize("model_type", ["cohere", "qwen2", "phi3"])
def test_queries_that_an_adapter_raises_are_turned_as_the_real_ones(model_type: str) -> None:
    """Under autocast some methods hand their output on in fp32, beside keys in half precision."""
    w = tiny(model_type, "miss", dtype="fp32", amp="bf16")
    difference = first_difference(estimated(w).timeline, traced(w).timeline, ("estimate", "trace"))
    assert difference is None, difference
