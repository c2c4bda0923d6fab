"""ReLoRA: the measured step ends with a merge, one target after the other; then adapters begin anew."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny


@pytest.mark.parametrize("history", ["none", "same,same"])
def test_one_targets_update_is_there_at_a_time(history: str) -> None:
    """In fp32, twice: the product, then what is scaled of it."""
    timeline = estimating.record(tiny("llama", "relora", rank=4, target="up_proj", history=history)).timeline
    update = 176 * 64 * 4
    begun = next(mark.at for mark in timeline.marks if mark.name == "optimizer")
    born = [row for row in timeline.events[begun:] if row >= 0 and timeline.nbytes[row] == update]
    assert [timeline.labels[row][0] for row in born] == [f"model.layers.{n}.mlp.up_proj" for n in (0, 0, 1, 1, 2, 2)]
    levels, live = [0], 0
    for event in timeline.events[begun:]:
        live += (event in born) - (~event in born)
        levels.append(live)
    assert (max(levels), levels[-1]) == (2, 0)


def test_a_restart_changes_weights_and_leaves_nothing_of_adapters_and_states() -> None:
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build
    from memcalc.realize.optimizer import make_optimizer
    from memcalc.realize.restarting import restart

    w = tiny("llama", "relora", dtype="fp32", config_changes={"num_hidden_layers": 1})
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    ids = torch.arange(8)[None]
    optimizer = make_optimizer(model, w)
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned, before = model(input_ids=ids).logits, model.state_dict().keys()
    restart(model, optimizer)
    assert torch.allclose(model(input_ids=ids).logits, tuned, atol=1e-5)
    assert all((x == 0).all() for name, x in model.named_parameters() if "lora_B" in name)
    assert all((state["exp_avg"] == 0).all() for state in optimizer.state.values())
    assert model.state_dict().keys() == before


def test_magnitudes_do_not_begin_anew() -> None:
    with pytest.raises(InvalidWorkload, match="--restarts cannot go with --use-dora"):
        tiny("llama", "relora", use_dora=True)


@pytest.mark.parametrize("producer", [estimated, traced])
def test_a_packed_base_is_for_real_tensors(producer: Callable[[Workload], Recording]) -> None:
    with pytest.raises(NotModelled, match="memcalc profile"):
        producer(tiny("llama", "relora", quant="nf4"))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"checkpointing": True, "modules_to_save": "lm_head"}),
        ("gpt2", {"dtype": "fp32", "amp": "bf16", "grad_accum": 2, "history": "8,empty,same"}),
        ("bloom", {"loop": "plain", "zero_grad": "zero", "autocast_adapter_dtype": False}),
        ("qwen2", {"optimizer": "adamw_8bit", "lr_ratio": 16, "checkpointing": True, "reentrant": True}),
    ],
    ids=str,
)
def test_its_stream_is_traces(model_type: str, options: dict[str, object]) -> None:
    assert_alike(tiny(model_type, "relora", batch=1, seq_len=8, target="all-linear", **options))
