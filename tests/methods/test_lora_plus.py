"""LoRA+: LoRA, stepped in groups of its own."""

from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.importers import peft
from memcalc.methods.lora import Lora
from memcalc.realize import optimizer
from tests.methods.likeness import assert_alike
from tests.tiny import tiny

_CONFIG = {"peft_type": "LORA", "r": 4, "target_modules": ["v_proj"]}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw_torch", "bias": "all", "checkpointing": True},
        {"optimizer": "adagrad", "use_dora": True, "amp": "bf16", "checkpointing": True, "reentrant": True},
        {"optimizer": "adamw_8bit", "modules_to_save": "norm,ln_f,embed_tokens,wte", "dtype": "fp32", "amp": "fp16"},
        {"optimizer": "schedule_free_adamw", "loop": "plain", "quant": "nf4"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "lora_plus", **options))


def test_all_a_are_stepped_before_any_b() -> None:
    w = tiny("llama", "lora_plus", config_changes={"num_hidden_layers": 2}, bias="all")
    _, _, loaded = estimating.write(w, *estimating.family_of(w))
    names = {id(x): name.rsplit(".", 3)[1] for name, x in loaded.trained.items()}
    assert [[names[id(x)] for x in group] for group in loaded.groups(w)] == [["lora_A"] * 4, [], ["lora_B"] * 4, []]


@pytest.mark.parametrize("loop", ["trainer", "plain"])
def test_foreach_holds_the_roots_of_one_group_at_a_time(loop: str) -> None:
    """The step's peak: three square matrices less."""
    plain, plus = (
        estimating.estimate(tiny("llama", method, optimizer="adamw_torch", target="o_proj", rank=64, loop=loop))
        for method in ("lora", "lora_plus")
    )
    assert (plain.phases[-1].allocated_peak or 0) - (plus.phases[-1].allocated_peak or 0) == 3 * 64 * 64 * 4


def test_four_layers_repeated_are_all_of_them() -> None:
    w = tiny("llama", "lora_plus", config_changes={"num_hidden_layers": 7}, optimizer="adamw_torch", bias="all")
    family, c = estimating.family_of(w)
    difference = first_difference(estimating.record(w).timeline, estimating.write(w, family, c)[0], ("few", "all"))
    assert difference is None, difference


def test_the_ratio_may_be_another_but_not_none() -> None:
    assert tiny("llama", "lora_plus").method == Lora(lr_ratio=16.0)
    assert tiny("llama", "lora_plus", lr_ratio=4).method == Lora(lr_ratio=4.0)
    with pytest.raises(InvalidWorkload, match="--method lora_plus means --lr-ratio"):
        tiny("llama", "lora_plus", lr_ratio=None)


def test_pefts_config_has_no_word_for_it() -> None:
    w = peft.workload("1.3b", _CONFIG, "lora_plus")
    assert (w.method_name, w.method) == ("lora_plus", Lora(rank=4, target=("v_proj",), lr_ratio=16.0))
    assert peft.from_json(w.to_json()).method == w.method
    with pytest.raises(InvalidWorkload, match="says otherwise of lr_ratio"):
        peft.workload("1.3b", {**_CONFIG, "init_lora_weights": "olora"}, "lora_plus")
    with pytest.raises(InvalidWorkload, match="says otherwise of use_dora"):
        peft.workload("1.3b", _CONFIG, "dora")


def test_a_peft_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import optimizers
    from torch import nn

    monkeypatch.delattr(optimizers, "create_loraplus_optimizer")
    with pytest.raises(NotModelled, match="has no create_loraplus_optimizer"):
        optimizer.make_optimizer(nn.Linear(2, 2), tiny("llama", "lora_plus"))
