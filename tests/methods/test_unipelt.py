"""UniPELT: LoRA, a prefix and adapters behind gates."""

from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import wrap
from memcalc.realize.model import build
from tests.methods.likeness import assert_alike
from tests.tiny import tiny

pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # peft passes it


def test_the_parts_train_and_a_gate_for_each() -> None:
    def trainable(method: str, **options: Any) -> int:
        return estimating.record(tiny("llama", method, **options)).trainable_params

    prefix = {"virtual_tokens": 10, "encoder_hidden_size": 512}
    plain = trainable("lora") + trainable("prefix_tuning", **prefix) + trainable("pfeiffer")
    assert trainable("unipelt") == plain + 3 * 4 * (64 + 1)


def _model(model_type: str, **options: Any) -> Any:
    w = tiny(model_type, "unipelt", dtype="fp32", use_cache=False, **options)
    return wrap(build(w, "cpu"), w, "cpu")


@pytest.mark.parametrize("model_type", ["gpt2", "bloom", "opt", "gemma2"])
def test_every_gate_takes_part(model_type: str) -> None:
    model = _model(model_type)
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.arange(10).view(2, 5)
    model(input_ids=ids, labels=ids).loss.backward()
    gates = [(name, x.grad) for name, x in model.named_parameters() if ".open.weight" in name]
    assert len(gates) == 3 * (3 if model_type in ("gpt2", "bloom") else 4)
    assert all(gradient is not None and gradient.abs().max() > 0 for _, gradient in gates)


def test_closed_gates_leave_the_model_with_an_empty_prefix() -> None:
    model = _model("llama", prefix_projection=False)
    for name, parameter in model.named_parameters():
        if ".open.bias" in name:
            torch.nn.init.constant_(parameter, -50.0)
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        closed = model(input_ids=ids).logits
        torch.nn.init.zeros_(model.prompt_encoder.default.embedding.weight)
        torch.testing.assert_close(model(input_ids=ids).logits, closed)


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"amp": "bf16", "loop": "plain", "grad_accum": 2},
        {"dtype": "fp32", "prefix_projection": False, "non_linearity": "silu"},
        {"quant": "nf4", "checkpointing": False},
        {"mode": "inference", "autocast_adapter_dtype": False},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "unipelt", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottleneck": 4, "reduction_factor": 8}, "--bottleneck and --reduction-factor are one choice"),
        ({"checkpointing": True}, "--checkpointing cannot go with --method unipelt"),
        ({"mode": "inference", "merged": True}, "--merged needs adapters that can be merged"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        tiny("llama", "unipelt", **options)
