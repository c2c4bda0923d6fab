"""What models are made of, against transformers' own functions on meta."""

from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import pytest
import torch

from memcalc.tape import attending, blocks, rotary
from memcalc.tape.attending import Attention
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.elementwise import add
from memcalc.tape.tape import Array, Tensor
from tests.tape.side_by_side import GPU, Op, assert_same


def _normed(b: int) -> tuple[Shape, ...]:
    return ((b, 5, 8), (8,))


def _qkv(b: int) -> tuple[Shape, ...]:
    return ((b, 4, 30, 16), (b, 2, 30, 16), (b, 2, 30, 16))


def _mask(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 1, 30, 30), "bool"),)


def _added(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 1, 30, 30), "bf16"),)


def _labels(b: int) -> tuple[tuple[Shape, str], ...]:
    return (((b, 5), "int64"),)


def _builder(implementation: str, dropout: float = 0.0) -> Any:
    return SimpleNamespace(
        attention=Attention(implementation, GPU, dropout=dropout), training=True, declaring=False, kernels_taken={}
    )


def _module(dropout: float = 0.0) -> Any:
    return SimpleNamespace(
        num_key_value_groups=2, training=True, is_causal=True, layer_idx=0, attention_dropout=dropout,
        config=SimpleNamespace(_attn_implementation="sdpa"),
    )  # fmt: skip


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> Any:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    return LlamaRMSNorm.forward(SimpleNamespace(weight=weight, variance_epsilon=1e-6), x)


def _wide_norm(x: torch.Tensor, weight: torch.Tensor) -> Any:
    from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

    return Olmo2RMSNorm.forward(SimpleNamespace(weight=weight, variance_epsilon=1e-6), x)


def _mean_free_norm(x: torch.Tensor, weight: torch.Tensor) -> Any:
    from transformers.models.cohere.modeling_cohere import CohereLayerNorm

    return CohereLayerNorm.forward(SimpleNamespace(weight=weight, variance_epsilon=1e-6), x)


def _centred_norm(x: torch.Tensor, weight: torch.Tensor) -> Any:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    norm: Any = type("Norm", (), {"_norm": GemmaRMSNorm._norm})()
    norm.weight, norm.eps = weight, 1e-6
    return GemmaRMSNorm.forward(norm, x)


def _activation(name: str) -> Any:
    def run(x: torch.Tensor) -> Any:
        from transformers.activations import ACT2FN

        return ACT2FN[name](x)

    return run


def _rotated_here(rotate: Any) -> Any:
    """Query and key turned, and added so that one result tells of both."""

    def run(q: Tensor, k: Tensor, cos: Array, sin: Array) -> Tensor:
        return add(*rotate(q, k, Tensor(cos), Tensor(sin)))

    return run


def _rotated(model: str) -> Any:
    def run(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        module = import_module(f"transformers.models.{model}.modeling_{model}")
        return torch.add(*module.apply_rotary_pos_emb(q, k, cos, sin))

    return run


def _rotation(rotate: Any, model: str, turned: int = 16) -> Op:
    return Op(
        _rotated_here(rotate), _rotated(model), lambda b: ((b, 4, 30, 16), (b, 4, 30, 16)),
        lambda _: (((1, 30, turned), "bf16"),) * 2, over=("bf16",),
    )  # fmt: skip


def _repeat(x: torch.Tensor) -> Any:
    from transformers.models.llama.modeling_llama import repeat_kv

    return repeat_kv(x, 3)


def _eager_here(dropout: float = 0.0, *, softcap: bool = False) -> Any:
    def run(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
        return attending.eager_attention(_builder("eager", dropout), q, k, v, mask, softcap=softcap)[0]

    return run


def _eager(dropout: float = 0.0, *, softcap: bool = False) -> Any:
    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as capped
        from transformers.models.llama.modeling_llama import eager_attention_forward

        if softcap:
            return capped(_module(), q, k, v, mask, dropout, 0.25, 50.0)[0]
        return eager_attention_forward(_module(), q, k, v, mask, 0.25, dropout)[0]

    return run


def _sdpa_here(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
    return attending.sdpa_attention(_builder("sdpa"), q, k, v, mask)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(_module(), q, k, v, mask, scaling=0.25)[0]


def _loss_here(logits: Tensor, labels: Array) -> Tensor:
    return blocks.causal_lm_loss(logits, labels, None)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> Any:
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(logits=logits, labels=labels, vocab_size=logits.shape[-1])


_DENSE: Final = ("contiguous", "leaf")
_HALF: Final = ("fp16", "bf16")

OPS: Final = {
    "rms norm": Op(blocks.rms_norm, _rms_norm, _normed),
    "rms norm, fp32 weight": Op(blocks.rms_norm, _rms_norm, _normed, dtypes=("", "fp32")),
    "rms norm, applied in fp32": Op(blocks.wide_rms_norm, _wide_norm, _normed),
    "rms norm, centred": Op(blocks.centred_rms_norm, _centred_norm, _normed),
    "norm without a mean": Op(blocks.mean_free_norm, _mean_free_norm, _normed),
    "gelu, new": Op(blocks.gelu_new, _activation("gelu_new"), lambda b: ((b, 5, 8),)),
    "gelu, new, autocast": Op(
        blocks.gelu_new, _activation("gelu_new"), lambda b: ((b, 5, 8),), amp="bf16", over=("fp32", "bf16")
    ),
    "gelu, fast": Op(blocks.gelu_fast, _activation("gelu_fast"), lambda b: ((b, 5, 8),)),
    "rotary embedding": _rotation(rotary.apply_rotary, "llama"),
    "rotary embedding of a part": _rotation(rotary.apply_partial_rotary, "phi3", 8),
    "rotary embedding of all, as if a part": _rotation(rotary.apply_partial_rotary, "phi3"),
    "rotary embedding of a part, both first": _rotation(rotary.apply_neox_rotary, "gpt_neox", 8),
    "rotary embedding of pairs": _rotation(partial(rotary.apply_neox_rotary, paired=True), "glm4", 8),
    "repeated heads": Op(lambda x: attending.repeat_kv(x, 3), _repeat, lambda b: ((b, 2, 5, 8),)),
    "eager attention": Op(_eager_here(), _eager(), _qkv, layouts=_DENSE),
    "eager attention, masked": Op(_eager_here(), _eager(), _qkv, _added, over=("bf16",), layouts=_DENSE),
    "eager attention, dropout": Op(_eager_here(0.1), _eager(0.1), _qkv, over=("bf16",), layouts=_DENSE),
    "eager attention, capped": Op(
        _eager_here(softcap=True), _eager(softcap=True), _qkv, over=("bf16",), layouts=_DENSE
    ),
    "sdpa": Op(_sdpa_here, _sdpa, _qkv, over=_HALF, layouts=_DENSE),
    "sdpa, masked": Op(_sdpa_here, _sdpa, _qkv, _mask, over=_HALF, layouts=_DENSE),
    "loss": Op(_loss_here, _loss, lambda b: ((b, 5, 16),), _labels, layouts=_DENSE),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_composition_allocates_saves_and_frees_what_transformers_does(op: Op) -> None:
    assert_same(op)
