"""Soft prompts: virtual tokens' embeddings put before those of the words.

Source: peft 0.21.2, peft_model.py, PeftModelForCausalLM.forward, PeftModel.get_prompt.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.ops.views import cat
from memcalc.tape.prelude import Batch, Output
from memcalc.tape.tape import Array, Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

Encoder = Callable[[Array], Tensor]  # numbers of virtual tokens (b, v) -> their embeddings (b, v, hidden)


def behind_prompts(
    m: "Builder", batch: Batch, model: Callable[[Batch], Output], tokens: int, encoder: Encoder
) -> Output:
    """The model's forward over `tokens` prompts of each row and the row itself; prompts have no labels.

    What the call names lives until it returns: the first part of mask and labels, the prompts.
    """
    b = batch.ids.shape[0]
    mask, _ones = longer_mask(batch, tokens)
    embeds = m.word_embeddings(batch.ids)
    if embeds.shape[2] != m.sizes.hidden:
        raise InvalidWorkload(
            f"prompts as wide as the hidden states ({m.sizes.hidden}) cannot stand before this model's embeddings "
            f"({embeds.shape[2]}), and peft makes no others: take another method"
        )
    labels = batch.labels
    if labels is not None:
        ignored = new((b, tokens), "int64", "to")
        labels = new((b, tokens + labels.shape[1]), "int64", "cat")
    prompts = prompts_of(b, tokens, encoder)
    prompts = cast(prompts, embeds.dtype)
    embeds = cat(prompts, embeds, 1)
    output = model(replace(batch, embeds=embeds, labels=labels, mask=mask))
    if labels is not None:
        del ignored
    return output


def longer_mask(batch: Batch, tokens: int) -> tuple[Array | None, Array | None]:
    """The mask of `tokens` positions more, fp32, and the ones that it begins with."""
    if batch.mask is None:
        return None, None
    b, s = batch.mask.shape
    ones = new((b, tokens), "fp32", "to")
    return new((b, tokens + s), "fp32", "cat"), ones


def prompts_of(b: int, tokens: int, encoder: Encoder) -> Tensor:
    """get_prompt: the encoder's answer for the tokens' numbers, which are brought to the device for each row."""
    numbers = new((b, tokens), "int64", "to")
    return encoder(numbers)
