"""Adapter methods add the same parameters as those of the `adapters` package, which has them as its own modules.

Its figures stand in tests/data/adapters_package.json; tests/adapters_package.py says how they were made.
"""

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, Final

import pytest

from memcalc import estimating
from memcalc.catalog.find import Model
from memcalc.workload import Workload

_FOUND: Final = json.loads((Path(__file__).parent.parent / "data" / "adapters_package.json").read_text())
_MODELS: Final[dict[str, dict[str, Any]]] = _FOUND["models"]


_NAMES: Final = (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head"))
_PREFIXES: Final = {"prefix_tuning": (30, 512), "p_tuning_v2": (30, 0), "mam": (30, 800), "unipelt": (10, 512)}


def _case_name(case: dict[str, Any]) -> str:
    return " ".join((case["model"], case["method"], *(f"{name}={value}" for name, value in case["options"].items())))


def _workload(case: dict[str, Any]) -> Workload:
    model = Model(case["model"], _MODELS[case["model"]], "tests/data/adapters_package.json")
    return Workload.of(model, case["method"], batch=1, seq_len=8, **case["options"])


def _apart(case: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """What trains in the package alone, and what does in ours alone: peft's prefix and LoRA are not the package's."""
    theirs, ours = Counter[str](), Counter[str]()
    config, options = _MODELS[case["model"]], case["options"]
    hidden, layers, heads = (config.get(name) or config[other] for name, other in _NAMES)
    keys = hidden // heads * config.get("num_key_value_heads", heads)
    tokens, inner = _PREFIXES.get(case["method"], (0, 0))
    tokens, inner = options.get("virtual_tokens", tokens), options.get("encoder_hidden_size", inner)
    if case["method"] == "p_tuning_v2" or options.get("prefix_projection") is False:
        # keys and values that train themselves: the package has them in a vector, peft in an embedding
        theirs[_named(tokens * 2 * layers * keys)] += 1
        ours[_named(tokens, 2 * layers * keys)] += 1
    elif case["method"] in _PREFIXES and keys != hidden:
        # the package projects embeddings as wide as the hidden states, peft such as are as wide as a layer's keys
        theirs.update([_named(tokens, hidden), _named(inner, hidden)])
        ours.update([_named(tokens, keys), _named(inner, keys)])
    if case["method"] == "unipelt" and config["model_type"] == "gpt2":
        # the package gives queries and values of a fused layer a LoRA and a gate each; peft's LoRA spans it as a whole
        rank = options.get("rank", 8)
        theirs.update([_named(2 * rank, hidden), _named(2 * hidden, rank), _named(2, hidden), "2"] * layers)
        ours.update([_named(rank, hidden), _named(3 * hidden, rank), _named(1, hidden), "1"] * layers)
    return theirs, ours


def _named(*shape: int) -> str:
    return " x ".join(map(str, shape))


@pytest.mark.parametrize("case", _FOUND["cases"], ids=_case_name)
def test_what_trains_and_what_is_frozen_have_the_packages_shapes(case: dict[str, Any]) -> None:
    added = estimating.architecture_of(_workload(case)).adapters.values()
    theirs, ours = _apart(case)
    assert Counter(_named(*one.shape) for one in added if one.frozen) == Counter(case["frozen"])
    trained = Counter(_named(*one.shape) for one in added if not one.frozen)
    assert trained - ours + theirs == Counter(case["trained"])
    assert not ours - trained


@pytest.mark.parametrize("case", [case for case in _FOUND["cases"] if case["model"] == "llama"], ids=_case_name)
def test_as_many_parameters_train(case: dict[str, Any]) -> None:
    """Where attention has as many keys as queries and q_proj stands alone, shapes may differ, but no count."""
    trained = sum(prod(map(int, shape.split(" x "))) * times for shape, times in case["trained"].items())
    assert estimating.record(_workload(case)).trainable_params == trained
