"""What models are made of, against transformers' own functions on meta."""

from types import SimpleNamespace
from typing import Any, Final

import pytest
import torch

from memcalc.tape import blocks
from memcalc.tape.blocks import Attention
from memcalc.tape.ops.elementwise import add
from memcalc.tape.tape import Array, Tensor
from tests.tape.side_by_side import GPU, Op, Shape, assert_same


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


def _rotary_here(q: Tensor, k: Tensor, cos: Array, sin: Array) -> Tensor:
    return add(*blocks.apply_rotary(q, k, Tensor(cos), Tensor(sin)))


def _rotary(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    return torch.add(*apply_rotary_pos_emb(q, k, cos, sin))


def _repeat(x: torch.Tensor) -> Any:
    from transformers.models.llama.modeling_llama import repeat_kv

    return repeat_kv(x, 3)


def _eager_here(dropout: float) -> Any:
    def run(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
        return blocks.eager_attention(_builder("eager", dropout), q, k, v, mask)[0]

    return run


def _eager(dropout: float) -> Any:
    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        from transformers.models.llama.modeling_llama import eager_attention_forward

        return eager_attention_forward(_module(), q, k, v, mask, 0.25, dropout)[0]

    return run


def _sdpa_here(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
    return blocks.sdpa_attention(_builder("sdpa"), q, k, v, mask)


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
    "rotary embedding": Op(
        _rotary_here, _rotary, lambda b: ((b, 4, 30, 16), (b, 4, 30, 16)), lambda _: (((1, 30, 16), "bf16"),) * 2,
        over=("bf16",),
    ),
    "repeated heads": Op(lambda x: blocks.repeat_kv(x, 3), _repeat, lambda b: ((b, 2, 5, 8),)),
    "eager attention": Op(_eager_here(0.0), _eager(0.0), _qkv, layouts=_DENSE),
    "eager attention, masked": Op(_eager_here(0.0), _eager(0.0), _qkv, _added, over=("bf16",), layouts=_DENSE),
    "eager attention, dropout": Op(_eager_here(0.1), _eager(0.1), _qkv, over=("bf16",), layouts=_DENSE),
    "sdpa": Op(_sdpa_here, _sdpa, _qkv, over=_HALF, layouts=_DENSE),
    "sdpa, masked": Op(_sdpa_here, _sdpa, _qkv, _mask, over=_HALF, layouts=_DENSE),
    "loss": Op(_loss_here, _loss, lambda b: ((b, 5, 16),), _labels, layouts=_DENSE),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_composition_allocates_saves_and_frees_what_transformers_does(op: Op) -> None:
    assert_same(op)
