"""Soft prompts: virtual tokens' embeddings put before those of the words, or their keys and values before each layer's.

Source: peft 0.21.2, peft_model.py, PeftModelForCausalLM.forward, PeftModel.get_prompt.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.tape.declared import Kind
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.arranging import permute
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.recurrent import lstm, lstm_parts
from memcalc.tape.ops.views import cat, cut, split, unbind, view
from memcalc.tape.prelude import Batch, Cache, Output
from memcalc.tape.tape import Array, Storage, Tensor, new, on_cuda, tape

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
    embeds = words_of(m, batch)
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


def words_of(m: "Builder", batch: Batch) -> Tensor:
    """The words' embeddings (b, s, hidden), looked up before the model's forward."""
    embeds = m.word_embeddings(batch.ids)
    if embeds.shape[2] != m.sizes.hidden:
        raise InvalidWorkload(
            f"prompts as wide as the hidden states ({m.sizes.hidden}) cannot stand before this model's embeddings "
            f"({embeds.shape[2]}), and peft makes no others: take another method"
        )
    return embeds


def behind_prefix(
    m: "Builder",
    batch: Batch,
    model: Callable[[Batch], Output],
    tokens: int,
    encoder: Encoder,
    heads: int,
    windows: tuple[int, ...],
    before: Callable[[], object] = lambda: None,
) -> Output:
    """The model's forward with `tokens` positions in its cache: their keys and values, of so many `heads`, a layer.

    `windows`: as the cache keeps them. Here the encoder answers (b, v, 2 * layers * heads * head_dim). `before`: what
    is computed and dropped when it is asked where its weight is.
    """
    mask, _ones = longer_mask(batch, tokens)
    before()
    cache = prefix_of(m, batch.ids.shape[0], tokens, encoder, heads, windows)
    return model(replace(batch, mask=mask, cache=cache))


def prefix_of(m: "Builder", b: int, tokens: int, encoder: Encoder, heads: int, windows: tuple[int, ...]) -> Cache:
    """get_prompt: the encoder's answer in the model's dtype, cut into the layers' keys and values, which are copied.

    What is cut lives until all are copied.
    """
    numbers = _numbers(b, tokens)
    prefix = encoder(numbers)
    prefix = cast(prefix, m.dtype)
    prefix = view(prefix, (b, tokens, 2 * m.layer_count, heads, m.sizes.head_dim))
    parts = split(permute(prefix, (2, 0, 3, 1, 4)), (2,) * m.layer_count, 0)
    cache = Cache(windows, tokens)
    places = None if not windows else new((tokens,), "int64", "arange")
    for part in parts:
        cache.fill(*unbind(part if windows else cut(part, 0, 2)))
    del numbers, places
    return cache


def longer_mask(batch: Batch, tokens: int) -> tuple[Array | None, Array | None]:
    """The mask of `tokens` positions more, fp32, and the ones that it begins with."""
    if batch.mask is None:
        return None, None
    b, s = batch.mask.shape
    ones = new((b, tokens), "fp32", "to")
    return new((b, tokens + s), "fp32", "cat"), ones


def prompts_of(b: int, tokens: int, encoder: Encoder) -> Tensor:
    """get_prompt: the encoder's answer for the tokens' numbers, which are brought to the device for each row."""
    return encoder(_numbers(b, tokens))


def _numbers(b: int, tokens: int) -> Array:
    """The tokens' numbers, repeated for each row where they are brought to the device; on the host a view of one."""
    if on_cuda():
        return new((b, tokens), "int64", "to")
    return Array(Storage(0, "arange"), (b, tokens), (0, 1), "int64")


def made_parameter(m: "Builder", part: str, shape: Shape, kind: Kind | None = None) -> Tensor:
    """A parameter of the encoder under way: made on the host, in fp32, and moved."""
    return m.adapter(m.path, part, shape, kind, dtype="fp32", late=True)


def made_linear(m: "Builder", x: Tensor, name: str, d_out: int) -> Tensor:
    """A linear layer of the encoder under way: (b, v, d_in) -> (b, v, d_out)."""
    outer, tape.scope = tape.scope, f"{m.path}.{name}"
    weight = made_parameter(m, f"{name}.weight", (d_out, x.shape[-1]), "linear")
    out = linear(x, weight, made_parameter(m, f"{name}.bias", (d_out,), "bias"))
    tape.scope = outer
    return out


def made_lstm(m: "Builder", x: Tensor, name: str, hidden: int, layers: int) -> Tensor:
    """A bidirectional LSTM of the encoder under way: (b, v, d_in) -> (b, v, 2 * hidden)."""
    outer, tape.scope = tape.scope, f"{m.path}.{name}"
    weights = [
        made_parameter(m, f"{name}.{part}", shape, "bias" if part.startswith("bias") else None)
        for part, shape in lstm_parts(x.shape[-1], hidden, layers, 2)
    ]
    out = lstm(x, weights, 2)
    tape.scope = outer
    return out
