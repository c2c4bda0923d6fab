import importlib.util
from typing import Any

import pytest

from memcalc.catalog.find import Model
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft as importer
from memcalc.realize.adapters import wants_tasks, wrap
from memcalc.realize.model import build
from tests.tracing.steps import CONFIGS

MODEL = Model("tiny", CONFIGS["llama"], "test")


def _wrapped(config: dict[str, Any], **options: Any) -> Any:
    workload = importer.workload(MODEL, config, dtype="fp32", **options)
    return wrap(build(workload, "meta"), workload, "meta")


def test_what_peft_leaves_on_the_host_comes_along() -> None:
    model = _wrapped({"peft_type": "FOURIERFT", "n_frequency": 8, "target_modules": ["q_proj"]})
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_adaloras_current_ranks_do_not_train() -> None:
    model = _wrapped({"peft_type": "ADALORA", "total_step": 10, "target_modules": ["q_proj"]})
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".ranknum." in name)


def test_a_field_of_another_version_of_peft_is_left_out() -> None:
    _wrapped({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "use_dora": True, "from_the_future": 1})


def test_a_saved_adapter_trains_again() -> None:
    config = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": [], "inference_mode": True}
    assert _wrapped(config).get_nb_trainable_parameters()[0] == 2 * 32


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "LORA", "target_modules": ["nothing"], "use_dora": True}, "peft refuses this"),
        ({"peft_type": "FROD", "sparse_rate": 2.0}, "peft refuses this"),
        ({"peft_type": "XLORA"}, "adapters"),
    ],
)
def test_what_peft_refuses_is_told_in_one_line(config: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidWorkload, match=told) as refused:
        _wrapped(config)
    assert "\n" not in str(refused.value)


def test_a_type_that_the_installed_peft_does_not_have_is_named_with_those_it_has() -> None:
    with pytest.raises(NotModelled, match=r"has no TELEPATHY: it has .*LORA"):
        _wrapped({"peft_type": "TELEPATHY"})


def test_methods_that_tell_tasks_apart_are_given_tasks() -> None:
    assert wants_tasks(_wrapped({"peft_type": "POLY", "r": 4, "target_modules": ["q_proj"]}))
    assert not wants_tasks(_wrapped({"peft_type": "LORA", "r": 4, "use_dora": True, "target_modules": ["q_proj"]}))


def test_a_package_that_one_initialization_needs_is_named() -> None:
    if importlib.util.find_spec("scipy") is not None:
        pytest.skip("it is installed")
    with pytest.raises(NotModelled, match=r"peft cannot do this here: .*scipy"):
        _wrapped({"peft_type": "LORA", "init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}})
