"""The loss in chunks of tokens: TRL's own, around transformers' model."""

from typing import Any

import pytest
import torch

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.realize.chunked import in_chunks
from memcalc.realize.model import build
from tests.methods.likeness import assert_alike
from tests.producers import traced
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("model_type", "method", "options"),
    [
        ("llama", "lora", {"batch": 4, "seq_len": 130}),  # three chunks
        ("qwen2", "lora", {"batch": 2, "seq_len": 129}),  # one whole chunk
        ("llama", "full", {"batch": 3, "seq_len": 1, "padded": True}),  # nothing to predict
        ("gpt2", "full", {"dtype": "fp32", "amp": "bf16", "checkpointing": True}),
        ("gemma2", "qlora", {"kbit_prepare": "trl", "padded": True}),
        ("cohere", "lora", {"modules_to_save": "lm_head", "loop": "plain", "keep_logits": "next"}),
        ("granite", "lora", {"loop": "plain", "grad_accum": 2, "dtype": "fp32", "amp": "fp16", "padded": True}),
        ("gpt2", "lora", {"checkpointing": True, "reentrant": True, "keep_logits": "next"}),  # the sums keep the graph
        ("opt", "prompt_tuning", {"padded": True, "batch": 1}),
    ],
)
def test_chunks_are_what_torch_makes_of_them(model_type: str, method: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, method, loss="chunked-nll", **options))


@pytest.mark.parametrize(
    ("model_type", "method", "options"), [("llama", "lora", {"target": "lm_head"}), ("gemma", "trainable_tokens", {})]
)
def test_an_adapted_head_is_refused(model_type: str, method: str, options: dict[str, Any]) -> None:
    w = tiny(model_type, method, loss="chunked-nll", **options)
    for tier in (estimating.record, traced):
        with pytest.raises(InvalidWorkload, match="--loss chunked-nll"):
            tier(w)


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_it_is_the_loss_that_transformers_computes(model_type: str) -> None:
    torch.manual_seed(0)
    model: Any = build(tiny(model_type, "full", dtype="fp32", attention="eager"), "cpu")
    ids = torch.randint(0, 200, (3, 120))
    labels = ids.masked_fill(torch.rand(3, 120) < 0.2, -100)
    expected = model(input_ids=ids, labels=labels)
    expected.loss.backward()
    gradient = model.get_output_embeddings().weight.grad.clone()
    model.zero_grad()
    in_chunks(model)
    found = model(input_ids=ids, labels=labels)
    found.loss.backward()
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(model.get_output_embeddings().weight.grad, gradient)
    assert found.num_valid_tokens == (labels[:, 1:] != -100).sum()
    assert found.logits is None


def test_the_peak_falls_by_the_logits_of_all_tokens() -> None:
    wide = {"config_changes": {"vocab_size": 32000}, "batch": 8, "seq_len": 256}
    whole, chunked = (estimating.peak_live(tiny("llama", "lora", loss=loss, **wide)) for loss in ("nll", "chunked-nll"))
    logits = 8 * 256 * 32000
    assert whole - chunked > 2 * 4 * logits - 4 * 4 * logits // 8


def test_any_depth_has_one_loss() -> None:
    deep = tiny("llama", "lora", loss="chunked-nll", checkpointing=True, config_changes={"num_hidden_layers": 7})
    assert estimating.peak_live(deep) == estimating.estimate(deep).peak_live
