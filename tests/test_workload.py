"""The one door: what options mean, what they imply, and which cannot go together."""

import copy
import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memcalc import methods
from memcalc.catalog.find import Model, find_gpu, gpus
from memcalc.errors import InvalidWorkload, MemcalcError, NotModelled, UnknownName
from memcalc.options import options_of
from memcalc.workload import Workload
from tests.strategies import JSON, anything, option_values
from tests.tiny import tiny

# The combinations that are refused, and what the message names.
REFUSED: Final[list[tuple[str, dict[str, Any], tuple[str, ...]]]] = [
    ("lora", {"double_quant": True}, ("--double-quant", "--quant none")),
    ("lora", {"quant": "int8", "double_quant": True}, ("--double-quant", "--quant int8")),
    ("lora", {"kbit_prepare": "peft"}, ("--kbit-prepare peft", "--quant")),
    ("lora", {"kbit_prepare": "trl"}, ("--kbit-prepare trl", "--quant")),
    ("qlora", {"kbit_prepare": "trl", "dtype": "fp16"}, ("--kbit-prepare trl", "--dtype bf16", "--amp bf16")),
    ("qlora", {"load": "to"}, ("--quant nf4", "--load to")),
    ("full", {"quant": "nf4"}, ("--quant nf4", "--method full")),
    ("bitfit", {"quant": "int8"}, ("--quant int8", "--method bitfit")),
    ("freeze", {"quant": "nf4"}, ("--quant nf4", "--method freeze")),
    ("lora", {"merged": True}, ("--merged", "--mode inference")),
    ("full", {"merged": True, "mode": "inference"}, ("--merged", "--method full")),
    ("houlsby", {"merged": True, "mode": "inference"}, ("--merged", "--method houlsby", "adapters that can be merged")),
    ("prompt_tuning", {"merged": True, "mode": "inference"}, ("--merged", "--method prompt_tuning")),
    ("lora", {"mode": "inference", "checkpointing": True}, ("--checkpointing", "--mode inference")),
    ("lora", {"mode": "inference", "history": "same"}, ("--history", "--mode inference")),
    ("lora", {"mode": "inference", "neftune_alpha": 5}, ("--neftune-alpha", "--mode inference")),
    ("lisa", {"lisa_states": "dropped", "optimizer": "adagrad"}, ("--method lisa", "--optimizer adagrad", "but once")),
    ("full", {"optimizer": "galore_adamw"}, ("--method full", "--optimizer galore_adamw", "--method galore")),
    ("galore", {"optimizer": "galore_adamw_layerwise", "grad_accum": 2}, ("galore_adamw_layerwise", "--grad-accum")),
    ("galore", {"optimizer": "galore_adamw_layerwise", "dtype": "fp32", "amp": "fp16"}, ("layerwise", "--amp fp16")),
    ("badam", {"optimizer": "paged_lion_8bit"}, ("--method badam", "--optimizer paged_lion_8bit", "no paged ones")),
    ("badam", {"optimizer": "schedule_free_sgd"}, ("--method badam", "--optimizer schedule_free_sgd", "the mode")),
    ("lora", {"mode": "inference", "loss": "liger"}, ("--loss liger", "--mode inference")),
    ("lora", {"use_cache": True, "loss": "chunked-nll"}, ("--use-cache", "--loss chunked-nll")),
    ("diff_pruning", {"loss": "chunked-nll"}, ("--loss chunked-nll", "--method diff_pruning")),
    ("lora", {"use_cache": True, "checkpointing": True}, ("--use-cache", "--checkpointing")),
    ("qlora", {"use_cache": True}, ("--use-cache", "--checkpointing")),
    ("adaption_prompt", {"merged": True, "mode": "inference"}, ("--merged", "--method adaption_prompt")),
    ("adaption_prompt", {"loss": "chunked-nll"}, ("--loss chunked-nll", "--method adaption_prompt")),
    ("p_tuning_v2", {"checkpointing": True}, ("--checkpointing", "--method p_tuning_v2")),
    ("lora", {"checkpoint_every": 2}, ("--checkpoint-every", "--checkpointing")),
    ("lora", {"dtype": "fp32", "attention": "flash"}, ("--attention flash", "--dtype fp32", "--amp none")),
    ("lora", {"dtype": "fp32", "attention": "sdpa-flash"}, ("--attention sdpa-flash", "--dtype fp32", "--amp none")),
    ("lora", {"dtype": "fp32", "attention": "cudnn"}, ("--attention cudnn", "--dtype fp32", "--amp none")),
    ("lora", {"attention": "flash", "gpu": "t4"}, ("--attention flash", "--gpu t4", "8.0", "7.5")),
    ("lora", {"attention": "sdpa-flash", "gpu": "t4"}, ("--attention sdpa-flash", "--gpu t4")),
    ("lora", {"attention": "sdpa-flash", "padded": True}, ("--attention sdpa-flash", "--padded")),
    ("lora", {"momentum": 0.9}, ("--momentum", "--optimizer sgd and rmsprop", "adamw_torch_fused")),
    ("qlora", {"quant": "fp4"}, ("--method qlora", "--quant nf4", "--quant fp4")),
    ("qlora", {"quant": "none"}, ("--method qlora", "--quant nf4", "--quant none")),
    ("lora", {"history": "same,none"}, ("--history",)),
    ("lora", {"history": "0"}, ("--history",)),
    ("lora", {"history": "1e3"}, ("--history",)),
    ("lora", {"history": "٣"}, ("--history",)),
    ("lora", {"lora_dropout": 1.0}, ("--lora-dropout",)),
    ("lora", {"alloc_conf": "max_split_size_mb:1"}, ("--alloc-conf",)),
    ("lora", {"gpu": "0GiB"}, ("0GiB",)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "named"), REFUSED, ids=[f"{case[0]} {case[1]}" for case in REFUSED])
def test_what_cannot_go_together_is_refused_by_both_names(
    method: str, options: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidWorkload) as caught:
        tiny("llama", method, **options)
    for part in named:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_refusal_of_the_rules_has_a_row() -> None:
    """A new rule needs a row above: the rules' own messages, counted."""
    from pathlib import Path

    from memcalc import resolving

    text = Path(resolving.__file__).read_text(encoding="utf-8")
    rules = text[text.index("def check(") :].count("raise InvalidWorkload(")
    reached = set()
    for method, options, _ in REFUSED:
        try:
            tiny("llama", method, **options)
        except InvalidWorkload as error:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            assert frame is not None
            if frame.tb_frame.f_code.co_filename == resolving.__file__ and frame.tb_frame.f_code.co_name != "_history":
                reached.add(frame.tb_lineno)
    assert len(reached) == rules


IMPLIED: Final[list[tuple[str, dict[str, Any], dict[str, Any]]]] = [
    ("lora", {}, {"quant": "none", "kbit_prepare": "none", "checkpointing": False, "load": "to", "history": ("same",)}),
    ("lora", {}, {"keep_logits": "none", "zero_grad": "none", "clip": 1.0, "use_cache": False}),
    ("lora", {"loop": "plain"}, {"keep_logits": "next", "zero_grad": "none", "clip": None, "use_cache": True}),
    ("lora", {"loop": "plain", "checkpointing": True}, {"use_cache": False}),
    ("lora", {"loop": "plain", "clip": 0.5, "keep_logits": "none"}, {"keep_logits": "none", "clip": 0.5}),
    ("qlora", {}, {"quant": "nf4", "double_quant": True, "kbit_prepare": "peft", "checkpointing": True}),
    ("qlora", {}, {"load": "device-map"}),
    ("qlora", {"double_quant": False}, {"quant": "nf4", "double_quant": False}),
    ("qlora", {"checkpointing": False}, {"kbit_prepare": "peft", "checkpointing": False}),
    ("qlora", {"kbit_prepare": "none"}, {"checkpointing": False}),
    (
        "qlora",
        {"mode": "inference"},
        {"kbit_prepare": "none", "checkpointing": False, "history": (), "use_cache": True},
    ),
    ("lora", {"quant": "int8"}, {"kbit_prepare": "peft", "checkpointing": True, "double_quant": False}),
    ("lora", {"quant": "gptq"}, {"kbit_prepare": "none", "checkpointing": False, "load": "device-map"}),
    ("lora", {"optimizer": "AdamW"}, {"optimizer": "adamw_torch"}),
    ("lora", {"optimizer": "adamw-torch-fused"}, {"optimizer": "adamw_torch_fused"}),
    ("lora", {"history": "none"}, {"history": ()}),
    ("lora", {"history": "160,empty"}, {"history": ("160", "empty")}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "meaning"), IMPLIED, ids=[f"{case[0]} {case[1]}" for case in IMPLIED])
def test_what_was_not_given_follows(method: str, options: dict[str, Any], meaning: dict[str, Any]) -> None:
    w = tiny("llama", method, **options)
    assert {name: getattr(w, name) for name in meaning} == meaning


def test_a_model_without_a_cache_has_none_unless_it_is_asked_for() -> None:
    w = tiny(loop="plain", config_changes={"use_cache": False})
    assert not w.use_cache
    assert tiny(loop="plain", use_cache=True, config_changes={"use_cache": False}).use_cache


@pytest.mark.parametrize(
    ("alias", "field"),
    [
        ("batch-size", "batch"), ("seq_length", "seq_len"), ("max-length", "seq_len"), ("optim", "optimizer"),
        ("gradient_accumulation_steps", "grad_accum"), ("grad-ckpt", "checkpointing"), ("max_grad_norm", "clip"),
        ("attn_implementation", "attention"), ("torch_dtype", "dtype"),
    ],
)  # fmt: skip
def test_names_that_peoples_hands_know_are_accepted(alias: str, field: str) -> None:
    values: dict[str, Any] = {"optimizer": "sgd", "checkpointing": True, "attention": "eager", "dtype": "fp32"}
    value = values.get(field, 3)
    assert getattr(Workload.of(tiny().model, **{alias: value}), field) == value


def test_lora_r_is_its_rank() -> None:
    assert tiny(lora_r=3).method.options()["rank"] == 3


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"batchsize": 2}, "batch_size"),
        ({"rnak": 2}, "rank"),
        ({"optimizer": "adamm"}, "adamw"),
        ({"quant": "nf5"}, "nf4"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(options: dict[str, Any], nearest: str) -> None:
    with pytest.raises(UnknownName, match="did you mean") as caught:
        tiny(**options)
    assert any(name.startswith(nearest[:4]) for name in caught.value.nearest)


def test_another_methods_option_is_unknown() -> None:
    with pytest.raises(UnknownName, match="'rank'"):
        tiny("llama", "full", rank=8)


def test_an_optimizer_of_the_future_is_not_written_yet() -> None:
    with pytest.raises(NotModelled, match="--optimizer galore_adafactor"):
        tiny(optimizer="galore_adafactor")


def test_the_card_gives_a_warning_where_bf16_is_slow() -> None:
    assert tiny(gpu="t4").warnings
    assert not tiny(gpu="t4", dtype="fp16").warnings
    assert not tiny(gpu="a100-80gb").warnings


def test_a_workload_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        tiny().batch = 3  # type: ignore[misc]


# ---- laws ----------------------------------------------------------------------------------------
def _options(method: str) -> st.SearchStrategy[dict[str, Any]]:
    possible = {**option_values(Workload), **option_values(methods.load(method).METHOD)}
    return st.fixed_dictionaries({}, optional=possible)


def _made(method: str, options: Mapping[str, Any]) -> Workload | type[MemcalcError]:
    try:
        return tiny("llama", method, **options)
    except MemcalcError as error:
        return type(error)


@pytest.mark.parametrize("method", methods.names())
def test_the_order_of_options_does_not_matter(method: str) -> None:
    @settings(max_examples=60)
    @given(_options(method), st.randoms(use_true_random=False))
    def check(options: dict[str, Any], shuffled: Any) -> None:
        items = list(options.items())
        shuffled.shuffle(items)
        assert _made(method, dict(items)) == _made(method, options)

    check()


@pytest.mark.parametrize("method", methods.names())
def test_json_and_back_is_the_same_workload(method: str) -> None:
    @settings(max_examples=60)
    @given(_options(method), st.sampled_from(["a100-80gb", "t4", "24GiB", "80 GB"]))
    def check(options: dict[str, Any], gpu: str) -> None:
        w = _made(method, {**options, "gpu": gpu})
        if isinstance(w, Workload):
            text = json.dumps(w.to_json())
            again = Workload.from_json(json.loads(text))
            assert json.dumps(again.to_json()) == text
            assert {**vars(again), "model": 0, "gpu": 0} == {**vars(w), "model": 0, "gpu": 0}
            assert (again.model.config, again.gpu.memory_bytes) == (w.model.config, w.gpu.memory_bytes)

    check()


@pytest.mark.parametrize("method", methods.names())
def test_of_changes_nothing_that_it_is_given(method: str) -> None:
    @settings(max_examples=60)
    @given(_options(method))
    def check(options: dict[str, Any]) -> None:
        model = Model("tiny", {"model_type": "llama", "nested": {"list": [1, 2]}}, "test")
        given_options, config = copy.deepcopy(options), copy.deepcopy(model.config)
        try:
            w = Workload.of(model, method, **options)
        except MemcalcError:
            pass
        else:
            w.to_json()["model_config"].clear()
        assert options == given_options
        assert model.config == config

    check()


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*options_of(Workload), "model", "method", "gpu", "model_config", "x"]), JSON))
def test_hostile_json_ends_in_an_error_of_ours(data: dict[str, Any]) -> None:
    try:
        assert isinstance(Workload.from_json(data), Workload)
    except MemcalcError as error:
        assert "\n" not in str(error)


@settings(max_examples=150)
@given(st.sampled_from(sorted({*tiny().to_json(), "attention_kernel"})), anything())
def test_one_hostile_value_in_a_workloads_json_ends_in_an_error_of_ours(key: str, value: Any) -> None:
    try:
        assert isinstance(Workload.from_json({**tiny().to_json(), key: value}), Workload)
    except MemcalcError as error:
        assert "\n" not in str(error)


def test_a_workload_of_any_part_of_its_json() -> None:
    w = Workload.from_json({"model": "llama-3.1-8b", "attention_kernel": "flash", "batch": 3})
    assert (w.model.name, w.batch, w.method_name) == ("llama-3.1-8b", 3, "lora")
    with pytest.raises(InvalidWorkload, match="needs a model"):
        Workload.from_json({"batch": 3})


@pytest.mark.parametrize("card", [card.key for card in gpus()])
def test_every_card_of_the_catalog_goes_through_json(card: str) -> None:
    assert Workload.from_json(tiny(gpu=card).to_json()).gpu == find_gpu(card)
