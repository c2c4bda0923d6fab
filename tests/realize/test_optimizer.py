from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from bitsandbytes.optim import GlobalOptimManager

from memcalc.realize.model import build
from memcalc.realize.optimizer import make_optimizer
from tests.tracing.steps import tiny


@pytest.fixture(autouse=True)
def _fresh_manager() -> Iterator[None]:
    with mock.patch.object(GlobalOptimManager, "_instance", None):
        yield


def _groups(family: str, **options: Any) -> list[list[str]]:
    workload = tiny(family, "full", **options)
    model = build(workload, "meta")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, workload).param_groups
    return [[names[id(parameter)] for parameter in group["params"]] for group in groups]


def test_trainer_steps_norms_and_biases_after_all_else() -> None:
    decaying, others = _groups("qwen2")
    assert "model.layers.0.self_attn.q_proj.weight" in decaying
    assert all(name.endswith((".bias", "norm.weight")) for name in others)
    assert not any(name.endswith((".bias", "norm.weight")) for name in decaying)


def test_layer_norms_are_known_by_their_class_whatever_they_are_called() -> None:
    assert "transformer.ln_f.weight" in _groups("bloom")[1]


@pytest.mark.parametrize(("loop", "dtype"), [("trainer", torch.float32), ("plain", torch.uint8)])
def test_trainer_has_8_bit_optimizers_spare_embeddings(loop: str, dtype: torch.dtype) -> None:
    workload = tiny("llama", "full", optimizer="lion_8bit", loop=loop)
    model = build(workload, "meta")
    optimizer = make_optimizer(model, workload)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = {name: optimizer.state[parameter]["state1"].dtype for name, parameter in model.named_parameters()}
    assert kept["model.embed_tokens.weight"] == dtype
    assert kept["lm_head.weight"] == torch.uint8
    assert kept["model.norm.weight"] == torch.float32


def test_a_loop_of_ones_own_has_one_group_in_order() -> None:
    (group,) = _groups("llama", loop="plain")
    assert group[0] == "model.embed_tokens.weight"
    assert group[-1] == "lm_head.weight"


def test_radam_is_past_its_first_steps_which_divide_by_nothing() -> None:
    """Held against what it does: from the sixth step on there is a denominator."""
    pytest.importorskip("schedulefree")
    model = torch.nn.Linear(4, 4)
    optimizer: Any = make_optimizer(model, tiny("llama", "full", optimizer="schedule_free_radam", loop="plain"))
    assert [group["k"] for group in optimizer.param_groups] == [5]
    model.weight.grad, model.bias.grad = torch.ones(4, 4), torch.ones(4)
    optimizer.step()
    assert not torch.equal(model.weight.grad, torch.ones(4, 4))  # normalized in place
