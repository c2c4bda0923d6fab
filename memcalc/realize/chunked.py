"""TRL's loss in chunks, around transformers' model: the head's product and the softmax of 256 tokens at a time.

TRL patches the causal model's forward before Trainer sees it; it need not be installed.
Source: TRL 1.14.0, trainer/sft_trainer.py, _patch_chunked_ce_lm_head, _chunked_cross_entropy_loss, _chunk.
"""

import inspect
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import log_softmax, nll_loss
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import uses_peft

_CHUNK = 256
_IGNORED = -100


@dataclass
class ChunkedOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """The model's output without logits, and what TRL logs."""

    num_correct_tokens: torch.Tensor | None = None
    entropy_sum: torch.Tensor | None = None
    num_valid_tokens: torch.Tensor | None = None


def in_chunks(model: Any) -> None:
    """Have a causal model compute its loss in chunks. Raises InvalidWorkload where its head is adapted, as TRL does."""
    base = model.get_base_model() if uses_peft(model) else model
    head = base.get_output_embeddings()
    if uses_peft(model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        if isinstance(head, BaseTunerLayer):
            raise InvalidWorkload(
                "--loss chunked-nll reads the head's weight alone: it cannot go with an adapted head (TRL refuses it)"
            )
    text = base.config.get_text_config()
    scale = getattr(text, "logit_scale", None)
    cap = getattr(text, "final_logit_softcapping", None)

    def forward(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        num_items_in_batch: Any = None,
        **others: Any,
    ) -> ChunkedOutput:
        others.pop("use_cache", None)
        outputs = self.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **others)
        hidden_states = outputs.last_hidden_state
        loss, correct, entropy, counted = _loss(
            hidden_states, head.weight, getattr(head, "bias", None), labels, num_items_in_batch, scale, cap
        )
        return ChunkedOutput(loss=loss, num_correct_tokens=correct, entropy_sum=entropy, num_valid_tokens=counted)

    forward.__signature__ = inspect.signature(base.forward.__func__)  # type: ignore[attr-defined]
    base.forward = types.MethodType(forward, base)


def _loss(
    hidden_states: Any, weight: Any, bias: Any, labels: Any, averaged_over: Any, scale: Any, cap: Any
) -> tuple[torch.Tensor, ...]:
    """Tokens that count first, then whole chunks of them; each chunk's forward runs again in backward."""
    hidden = hidden_states[..., :-1, :].reshape(-1, hidden_states.size(-1))
    labels = labels[..., 1:].reshape(-1)
    valid = labels != _IGNORED
    counted = valid.sum()
    correct = hidden.new_zeros((), dtype=torch.float32)
    entropy = hidden.new_zeros((), dtype=torch.float32)
    order = valid.to(torch.int8).argsort(descending=True, stable=True)
    hidden = hidden[order]
    labels = labels[order]
    bound = (counted / _CHUNK).ceil().clamp(min=1).to(torch.int64) * _CHUNK
    loss = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, bound, _CHUNK):
        some, some_labels = hidden[start : start + _CHUNK], labels[start : start + _CHUNK]
        sums = checkpoint(_of_chunk, some, weight, bias, some_labels, scale, cap, use_reentrant=False)
        loss = loss + sums[0]
        correct = correct + sums[1]
        entropy = entropy + sums[2]
    loss = loss / (counted.clamp(min=1) if averaged_over is None else averaged_over)
    return loss, correct, entropy, counted


def _of_chunk(hidden: Any, weight: Any, bias: Any, labels: Any, scale: Any, cap: Any) -> tuple[torch.Tensor, ...]:
    """Sums over a chunk: losses, right guesses, entropies; the latter two need no gradient, and entropies carry one."""
    logits = (hidden @ weight.to(hidden.dtype).t()).float()
    if bias is not None:
        logits = logits + bias.float()
    if scale not in (None, 1.0):
        logits = logits * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    log_p = log_softmax(logits, dim=-1)
    loss = nll_loss(log_p, labels, ignore_index=_IGNORED, reduction="sum")
    valid = labels != _IGNORED
    correct = ((logits.argmax(dim=-1) == labels) & valid).sum().float()
    entropy = (-(log_p.exp() * log_p).sum(dim=-1) * valid).sum()
    return loss, correct, entropy
