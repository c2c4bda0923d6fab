from contextlib import AbstractContextManager, nullcontext

import torch

from memcalc.realize.loading import build_base, load
from memcalc.tracing.record import record
from tests.tracing.steps import tiny


class _Silent:
    """Watches nothing."""

    def history(self) -> None: ...

    def measured(self) -> None: ...

    def phase(self, name: str) -> None: ...

    def phase_end(self) -> None: ...

    def stepping(self, parameter: torch.Tensor) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self) -> None: ...

    def empty_cache(self) -> None: ...


def test_to_moves_children_first_and_tied_weights_once() -> None:
    timeline = record(tiny("qwen2", "full")).timeline
    modules = [module for module, name in timeline.labels if name == "weight"]
    assert modules[0] == "model.embed_tokens"
    assert modules[-1] == "model.norm"
    assert "lm_head" not in modules
    assert modules.index("model.layers.0.mlp.gate_proj") < modules.index("model.layers.0.input_layernorm")


def test_device_map_frees_a_warm_up_block_and_loads_by_name() -> None:
    timeline = record(tiny("llama", "full", load="device-map")).timeline
    assert timeline.events[:2] == [0, ~0]
    weights = [row for row, (_, name) in enumerate(timeline.labels) if name == "weight"]
    assert timeline.nbytes[0] == sum(timeline.nbytes[row] for row in weights)
    assert timeline.labels[1] == ("lm_head", "weight")


def test_a_packed_weight_leaves_nothing_of_its_half_precision_copy() -> None:
    timeline = record(tiny(method="qlora", mode="inference")).timeline
    loaded = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    names = {timeline.labels[row][1] for row in timeline.alive_at(loaded)}
    assert names <= {"weight", "quant_state", "inv_freq", "original_inv_freq", "_to_copy"}


def test_a_loaded_model_is_the_one_that_was_built_on_a_real_device() -> None:
    base = build_base(tiny(dtype="fp32"), "cpu")
    before = base.values["model.norm.weight"].clone()
    model, own = load(base, tiny(dtype="fp32"), "cpu", _Silent())
    parameters = dict(model.named_parameters())
    assert parameters["base_model.model.model.norm.weight"].equal(before)
    assert sum(id(parameter) not in own for parameter in parameters.values()) == 8


def test_a_bias_of_a_packed_layer_reaches_a_real_device() -> None:
    workload = tiny("bloom", "qlora", dtype="fp32")
    base = build_base(workload, "cpu")
    name = "transformer.h.0.mlp.dense_h_to_4h.bias"
    before = base.values[name].clone()
    model, _ = load(base, workload, "cpu", _Silent())
    assert dict(model.named_parameters())[f"base_model.model.{name}"].equal(before)
