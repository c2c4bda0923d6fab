"""LongLoRA: embeddings and norms train beside adapters, and attention in training sees groups."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from memcalc import estimating
from memcalc.errors import InvalidWorkload
from memcalc.recording import Recording
from memcalc.workload import Workload
from tests.methods.likeness import assert_alike
from tests.producers import estimated, traced
from tests.tiny import tiny

_BY_THE_INTERFACE: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt_neox", "opt", "gpt2")


def test_embeddings_and_norms_of_llama_train_beside_adapters() -> None:
    """In bf16, where adapters are fp32: q and v of rank 8 a layer; two norms a layer and a last one; the embedding."""
    w = Workload.of("llama-2-7b", "longlora", seq_len=64)
    recording = estimating.record(w)
    adapters, own = 32 * 2 * 8 * 2 * 4096, (65 + 32_000) * 4096
    assert recording.trainable_params == adapters + own
    assert recording.checkpoint_bytes == 4 * adapters + 2 * own


@pytest.mark.parametrize("model_type", _BY_THE_INTERFACE)
def test_what_trains_is_what_the_papers_code_lets_train(model_type: str) -> None:
    """fine-tune.py: peft's LoRA, then every parameter with a word in its name."""
    from peft import LoraConfig, get_peft_model

    from memcalc.realize.model import build

    w = tiny(model_type, "longlora")
    conv1d = model_type == "gpt2"
    words = ("wte", "wpe", "ln_") if conv1d else ("embed", "norm")
    config = LoraConfig(r=8, target_modules=list(w.method.default_targets(model_type)), fan_in_fan_out=conv1d)
    model: Any = get_peft_model(build(w, "meta"), config)
    for name, parameter in model.named_parameters():
        if any(word in name for word in words):
            parameter.requires_grad_()
    assert estimating.record(w).trainable_params == model.get_nb_trainable_parameters()[0]


def test_scores_are_those_of_groups() -> None:
    """Of eager attention in bf16, 3 layers of 4 heads and 2 x 24 tokens: a quarter of what full attention keeps."""

    def kept(method: str) -> int:
        timeline = estimating.record(tiny("llama", method, attention="eager")).timeline
        softmax = [row for row, (_, op) in enumerate(timeline.labels) if op == "softmax"]
        return max(timeline.nbytes[row] for row in softmax)

    assert kept("lora") == 2 * 4 * 24 * 24 * 4
    assert kept("longlora") == kept("lora") // 4


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"attention": "eager", "padded": True, "checkpointing": True}),
        ("llama", {"attention": "flash", "padded": True, "group_size_ratio": 0.5}),
        ("llama", {"attention": "flash", "padded": True, "group_size_ratio": 1.0}),
        ("llama", {"quant": "nf4", "target": "all-linear"}),
        ("llama", {"mode": "inference"}),
        ("qwen2", {"amp": "bf16", "dtype": "fp32", "loop": "plain"}),
        ("qwen2", {"attention": "sdpa", "padded": True, "batch": 1, "checkpointing": True, "reentrant": True}),
        ("qwen2", {"bias": "all", "use_dora": True, "lr_ratio": 16}),
        ("gpt2", {"attention": "eager", "checkpointing": True, "optimizer": "adamw_8bit"}),
        ("opt", {"trainable_params": "norm", "checkpointing": True, "quant": "nf4", "kbit_prepare": "none"}),
        ("mistral", {"attention": "eager", "padded": True, "config_changes": {"sliding_window": 4}}),
    ],
    ids=str,
)
def test_its_stream_is_traces(model_type: str, options: dict[str, Any]) -> None:
    assert_alike(tiny(model_type, "longlora", **options))


@pytest.mark.parametrize("producer", [estimated, traced])
@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("llama", {"seq_len": 26}, "--seq-len 26 cannot go with --group-size-ratio 0.25: groups of 6 tokens do not"),
        ("llama", {"seq_len": 12}, "--seq-len 12 cannot go with --group-size-ratio 0.25: groups of 3 tokens have"),
        ("llama", {"seq_len": 3}, "groups of 0 tokens have no halves"),
        ("llama", {"config_changes": {"num_key_value_heads": 1}}, "1 of keys and values cannot be halved"),
        ("bloom", {}, "needs attention by transformers' interface: bloom has its own"),
        ("falcon", {}, "needs attention by transformers' interface: falcon has its own"),
        ("llama", {"trainable_params": "nowhere"}, "'nowhere' is in none of the names"),
        ("llama", {"modules_to_save": "embed_tokens"}, r"both name model\.embed_tokens\.weight"),
        ("llama", {"dtype": "fp16", "amp": "fp16"}, "GradScaler refuses"),
        ("llama", {"trainable_params": "mlp", "quant": "nf4"}, "what is packed does not train"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_both_in_the_same_words(
    producer: Callable[[Workload], Recording], model_type: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        producer(tiny(model_type, "longlora", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size_ratio": 1.5}, "--group-size-ratio 1.5"),
        ({"group_size_ratio": "none"}, "--method longlora means --group-size-ratio 0.25"),
        ({"trainable_params": "none"}, "--method longlora means --trainable-params embed,norm"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkload, match=message):
        tiny("llama", "longlora", **options)
