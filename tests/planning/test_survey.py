import warnings
from dataclasses import replace
from typing import Any, Final

import pytest

import memcalc
from memcalc import methods
from memcalc.catalog.find import Model
from memcalc.errors import InvalidWorkload, MemcalcError, NotModelled, UnknownName
from memcalc.estimating import architecture_of, estimate
from memcalc.methods.base import Kind
from memcalc.planning.survey import Row, Survey, survey
from memcalc.step.declaring import changed_in, trained_in
from memcalc.workload import Workload
from tests.tiny import TINY, taken, tiny

_METHOD: Final = pytest.mark.parametrize("method", methods.names())
_LLAMA: Final = Model("tiny", TINY["llama"], "test")
_SHORT: Final[dict[str, Any]] = {"batch": 2, "seq_len": 24}


def _survey(*names: str, **options: Any) -> Survey:
    return survey(_LLAMA, names, {**_SHORT, **options})


def _row(method: str, **options: Any) -> Row:
    return _survey(method, **options).rows[0]


def _small(method: str) -> Workload:
    """Two layers in fp32, some linear ones with biases; no base is quantized, whatever the method's name implies."""
    w = tiny(
        taken("qwen2", method),
        method,
        dtype="fp32",
        config_changes={"num_hidden_layers": 3 if method == "llama_pro" else 2},
    )
    return replace(w, quant="none", double_quant=False, kbit_prepare="none", checkpointing=False)


@_METHOD
def test_what_it_changes_once_merged_is_what_peft_changes(method: str) -> None:
    """Counted in the merged model, all that trains set to other numbers."""
    if method == "loftq":
        pytest.skip("peft's LoftQ needs a GPU")
    import torch

    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    w = _small(method)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        base: Any = build(w, "cpu")
        for x in base.parameters():  # biases begin with zeros, which no factor changes
            torch.nn.init.normal_(x.data)
        before = {name: x.detach().clone() for name, x in base.named_parameters()}
        model: Any = wrap(base, w, "cpu")
        added = sum(x.numel() for x in model.parameters()) - sum(x.numel() for x in before.values())
        changing = [x for x in model.parameters() if x.requires_grad]
        for x in changing:
            torch.nn.init.normal_(x.data)
        merges = hasattr(model, "merge_and_unload")
        try:
            model = model.merge_and_unload() if merges else model
        except NotImplementedError:  # Lily's and Poly's
            merges = False
    assert w.method.merges == merges
    if merges or not added:
        after = dict(model.named_parameters())
        numbers = sum(int((after[name] != x).sum()) for name, x in before.items())
        numbers += sum(x.numel() for name, x in after.items() if name not in before)  # a bias where there was none
    else:
        numbers = sum(x.numel() for x in changing)
    if method == "diff_pruning":
        numbers //= 2  # the other half says which differences stay
    assert changed_in(architecture_of(w), w.method) == numbers


@_METHOD
def test_its_family_suits_what_it_does(method: str) -> None:
    """What stays beside the base's weights is a prompt or an adapter; what can be merged is neither."""
    w = _small(method)
    if method == "diff_pruning":
        return  # its differences stand beside the weights in training alone
    added = architecture_of(w).adapters.values()
    adds = w.method.adds and any(adapter.kind != "buffer" and not adapter.of for adapter in added)
    kind: Kind = w.method.kind
    assert (kind in ("soft prompt", "adapter")) == (adds and not w.method.merges), f"{method}: {kind}"
    assert (kind == "soft prompt") <= (w.method.peft_config() is not None)


@_METHOD
def test_counting_what_trains_needs_no_step(method: str) -> None:
    try:
        footprint = estimate(w := tiny("bloom", method))
    except MemcalcError:
        pytest.skip("estimate does not write it")
    assert trained_in(architecture_of(w)) == footprint.trainable_params


def test_no_method_is_dropped_silently() -> None:
    found = survey(_LLAMA, methods.names(), _SHORT)
    assert {row.method for row in found.rows} | found.refused.keys() == set(methods.names())
    assert found.refused["bitfit"] == "--method bitfit trains biases: this llama model has none"


def test_figures_are_those_of_estimate() -> None:
    row, w = _row("lora", rank=4), Workload.of(_LLAMA, "lora", rank=4, **_SHORT)
    footprint = estimate(w)
    for name in ("trainable_params", "total_params", "checkpoint_bytes", "peak_reserved", "peak_allocated"):
        assert getattr(row, name) == getattr(footprint, name), name
    full = estimate(Workload.of(_LLAMA, "full", **_SHORT))
    assert row.peak_of_full == footprint.held / full.held


def test_what_inference_adds_is_the_difference_of_two_estimates() -> None:
    alone, adapted = (estimate(Workload.of(_LLAMA, method, mode="inference", **_SHORT)) for method in ("full", "lora"))
    assert alone.phases[-1].allocated_peak is not None
    assert adapted.phases[-1].allocated_peak is not None
    row = _row("lora")
    assert row.inference_bytes == adapted.phases[-1].allocated_peak - alone.phases[-1].allocated_peak
    assert row.inference_params == row.trainable_params
    assert (_row("full").inference_params, _row("full").inference_bytes, _row("full").mergeable) == (0, 0, None)


@pytest.mark.parametrize(
    "options", [{"loss": "chunked-nll"}, {"checkpointing": True}, {"history": "none"}, {"kbit_prepare": "peft"}]
)
def test_what_is_of_training_alone_is_left_out_at_inference(options: dict[str, Any]) -> None:
    given = {**options, **({"quant": "nf4"} if "kbit_prepare" in options else {})}
    assert _row("lora", **given).inference_bytes == _row("lora").inference_bytes


def test_a_quantized_base_is_held_against_its_own_kind_at_inference_and_against_full_fine_tuning_in_a_step() -> None:
    row = _row("qlora")
    assert (row.quant, row.checkpointing) == ("nf4", True)
    assert 0 < row.inference_bytes < 10 * row.trainable_params
    under = _survey("full", "lora", quant="nf4")
    assert under.full == _survey("full").full
    assert "full" in under.refused


def test_backward_reaches_the_lowest_layer_that_trains() -> None:
    assert [_row("freeze", layers=layers).layers_reached for layers in (1, 2, 3)] == [1, 2, 3]
    assert _row("prompt_tuning").layers_reached == _row("prompt_tuning").layers == 3
    assert _row("freeze", layers=1, checkpointing=True).layers_reached == 3  # the embedding's output is made to train


def test_frozen_layers_keep_less_and_checkpointed_ones_least() -> None:
    full, lora, frozen = (_row(method).kept_bytes for method in ("full", "lora", "freeze"))
    assert frozen < lora
    assert _row("full", checkpointing=True).kept_bytes < full / 2


def test_shares_of_full_fine_tuning_are_one_for_itself() -> None:
    row = _row("full")
    assert (row.peak_of_full, row.backward_of_full) == (1.0, 1.0)
    assert row.changed_params == row.trainable_params == row.total_params


def test_an_option_goes_to_the_methods_that_have_it() -> None:
    lora, full = _survey("lora", "full", rank=3).rows
    assert lora.trainable_params == 3 * _row("lora", rank=1).trainable_params
    assert full.trainable_params == full.total_params


def test_an_option_that_none_has_is_refused_with_its_owners() -> None:
    with pytest.raises(InvalidWorkload, match=r"none of full, bitfit has --rank: it belongs to .*lora"):
        _survey("full", "bitfit", rank=3)
    with pytest.raises(UnknownName, match="nonsense"):
        _survey("full", nonsense=3)


def test_where_no_method_can_be_had_the_first_reason_is_the_answer() -> None:
    with pytest.raises(InvalidWorkload, match="trains biases"):
        _survey("bitfit")


def test_what_estimate_does_not_write_at_all_keeps_its_exit_code() -> None:
    with pytest.raises(NotModelled, match="gptq"):
        _survey("lora", quant="gptq")


def test_a_survey_is_of_training() -> None:
    with pytest.raises(InvalidWorkload, match="--mode"):
        _survey("lora", mode="inference")


def test_the_public_function_makes_a_frame_of_all_rows() -> None:
    frame = memcalc.survey("smollm2-135m", only=("full", "bitfit", "lora"), seq_len=64).to_frame()
    assert list(frame["method"]) == ["full", "lora", "bitfit"]
    assert str(frame["trainable_params"].dtype) == "Int64"
    assert "trains biases" in frame["reason"][2]
