"""Mixture-of-Depths: layers that a router lets some tokens through."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimate, estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.mixture_of_depths import tokens_through
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_FAMILIES = ("llama", "qwen2", "gpt2", "opt", "bloom", "falcon", "gemma2", "phi3")


def _model(model_type: str, **options: Any) -> Any:
    w = tiny(model_type, "mixture_of_depths", dtype="fp32", mode="inference", attention="eager", **options)
    torch.manual_seed(0)
    return wrap(build(w, "cpu"), w, "cpu")


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "router")]


@pytest.mark.parametrize(
    ("model_type", "every"), [*((model_type, 2) for model_type in _FAMILIES), ("llama", 1), ("llama", 3)]
)
def test_all_of_the_model_trains_and_a_router_in_each_routed_layer(model_type: str, every: int) -> None:
    w = tiny(model_type, "mixture_of_depths", route_every=every)
    full = estimating.record(tiny(model_type, "full"))
    recording = estimating.record(w)
    assert recording.trainable_params == recording.total_params == full.total_params + 3 // every * 64
    assert recording.checkpoint_bytes == 2 * recording.total_params
    real = wrap(build(w, "meta"), w, "meta")
    assert sum(x.numel() for x in real.parameters() if x.requires_grad) == recording.trainable_params


def test_the_first_layer_sees_all_tokens() -> None:
    routed = [name for name, module in _model("llama").named_modules() if hasattr(module, "router")]
    assert routed == ["model.layers.1"]
    last = [name for name, _ in _model("llama").named_parameters() if ".layers.1." in name][-1]
    assert last == "model.layers.1.router.weight"


@pytest.mark.parametrize(("s", "capacity", "count"), [(2048, 0.125, 256), (24, 0.5, 12), (3, 0.125, 1), (7, 1.0, 7)])
def test_one_token_at_least_goes_through(s: int, capacity: float, count: int) -> None:
    assert tokens_through(s, capacity) == count


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "bloom", "falcon", "gemma2"])
def test_chosen_tokens_see_each_other_alone_and_as_far_apart_as_they_are(model_type: str) -> None:
    """Held against the layer over all tokens whose mask shows the chosen ones alone."""
    changes = {"alibi": True} if model_type == "falcon" else {}
    model = _model(model_type, capacity=0.5, config_changes=changes)
    (layer,) = _layers(model)
    torch.nn.init.normal_(layer.router.weight)
    seen: list[Any] = []
    layer.register_forward_hook(lambda *call: seen.append(call[1:]), with_kwargs=True)
    mask = torch.ones(2, 10, dtype=torch.int64)
    mask[1, -3:] = 0
    model(input_ids=torch.randint(0, 200, (2, 10)), attention_mask=mask, use_cache=False)
    base: Any = type(layer).__mro__[1]
    args, kwargs, out = seen[0]
    x, *rest = args
    given = dict(zip(list(inspect.signature(base.forward).parameters)[2:], rest, strict=False)) | kwargs
    weights = layer.router(x).squeeze(-1)
    chosen = torch.zeros(2, 10, dtype=torch.bool).scatter_(1, weights.topk(5, dim=1).indices, value=True)
    hidden = given["attention_mask"].masked_fill(~chosen[:, None, None, :], torch.finfo(torch.float32).min)
    whole = base.forward(layer, x, **{**given, "attention_mask": hidden})
    summed, update = (one[0] if isinstance(one, tuple) else one for one in (out, whole))
    torch.testing.assert_close(summed[~chosen], x[~chosen])
    counted = chosen & mask.bool()
    torch.testing.assert_close(summed[counted], (x + weights.unsqueeze(-1) * (update - x))[counted])


def test_routers_learn_by_the_tokens_that_they_let_through() -> None:
    w = tiny("llama", "mixture_of_depths", dtype="fp32", checkpointing=True)
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    ids = torch.arange(48).view(2, 24)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(layer.router.weight.grad.abs().sum() > 0 for layer in _layers(model))


def test_layers_that_let_few_through_need_less_of_everything() -> None:
    some, all_of_them = (
        estimate("llama-3.2-1b", method, batch=4, seq_len=2048, optimizer="sgd").at_peak or {}
        for method in ("mixture_of_depths", "full")
    )
    assert 0.55 < some["activations"] / all_of_them["activations"] < 0.6
    work = [
        estimating.arithmetic(tiny("llama", "mixture_of_depths", seq_len=128, capacity=capacity))
        for capacity in (0.125, 0.5, 1.0)
    ]
    assert work[0].forward < work[1].forward < work[2].forward
    assert work[0].backward < work[1].backward < work[2].backward


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2", "bloom"])
@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": True, "capacity": 0.5, "padded": True},
        {"checkpointing": True, "reentrant": True, "loop": "plain", "route_every": 1},
        {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "attention": "eager"},
        {"mode": "inference", "use_cache": True, "load": "device-map"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "mixture_of_depths", **options))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"attention": "flash", "batch": 1, "checkpointing": True}),  # its positions are not looked at
        ("mistral", {"config_changes": {"sliding_window": 8}, "mode": "inference", "use_cache": True}),
        ("falcon", {"config_changes": {"alibi": True}, "attention": "eager", "padded": True}),
        ("opt", {"config_changes": {"do_layer_norm_before": False}, "amp": "bf16"}),  # layers raise what they are given
        ("llama", {"mode": "inference", "quant": "nf4", "load": "device-map"}),
    ],
)
def test_its_stream_is_traces_in_rarer_models(model_type: str, options: dict[str, Any]) -> None:
    w = tiny(model_type, "mixture_of_depths", **options)
    if w.quant == "none":
        assert_alike(w)
    else:
        assert estimated(w).timeline.nbytes == traced(w).timeline.nbytes


def test_layers_of_which_each_is_routed_are_written_a_few_for_all() -> None:
    deep = {"num_hidden_layers": 9}
    assert_alike(tiny("llama", "mixture_of_depths", route_every=1, config_changes=deep))
    assert tiny("llama", "mixture_of_depths", route_every=1).method.layers_alike
    assert not tiny("llama", "mixture_of_depths").method.layers_alike


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0.0}, "--capacity must be above 0 and at most 1, not 0.0"),
        ({"capacity": 1.5}, "--capacity must be above 0 and at most 1"),
        ({"route_every": 4}, "--route-every 4 routes none of the 3 layers"),
        ({"quant": "nf4"}, "--quant nf4 freezes the base, .* it cannot go with --method mixture_of_depths"),
    ],
)
def test_what_cannot_be_is_refused(
    producer: Callable[[Workload], Recording], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny("llama", "mixture_of_depths", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
def test_how_many_chosen_tokens_are_padding_is_not_known(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(NotModelled, match=r"use profile|memcalc profile measures it"):
        producer(tiny("llama", "mixture_of_depths", attention="flash", padded=True))
