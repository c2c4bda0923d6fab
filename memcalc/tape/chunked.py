"""The cross-entropy in chunks of tokens, each checkpointed: the logits of all tokens are never there at once.

Source: TRL 1.14.0, trainer/sft_trainer.py, _chunked_cross_entropy_loss, _chunk (from 1.15 on the name is an alias of a
loss by a Triton kernel). The ops are torch's; memcalc/realize/chunked.py is the same over real tensors.
"""

from functools import partial
from typing import NamedTuple

from memcalc.tape import attending
from memcalc.tape.checkpoint import checkpoint
from memcalc.tape.ops.elementwise import add, cast, divide, divided, exp, mul, neg, scale, tanh
from memcalc.tape.ops.linear import linear_by_hand
from memcalc.tape.ops.loss import log_softmax, nll_loss
from memcalc.tape.ops.reductions import total, total_of_all
from memcalc.tape.ops.views import cut, indexed, reshape
from memcalc.tape.tape import Array, Tensor, new

CHUNK = 256  # tokens


class Chunked(NamedTuple):
    """The loss, and sums over the tokens that TRL logs: they keep their graphs as long as the model's output lives."""

    loss: Tensor
    correct: Tensor
    entropy: Tensor
    counted: Array


def chunked_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Array,
    averaged_over: Array | None,
    valid_tokens: int,
    rescale: attending.Steps,
) -> Chunked:
    """Hidden states (b, s, hidden), the head's weight (vocab, hidden), labels (b, s) of which `valid_tokens` count.

    Tokens whose label is ignored are sorted behind the others, and whole chunks of them left out.
    """
    b, s, width = hidden_states.shape
    n = b * (s - 1)
    hidden = reshape(cut(hidden_states, 1, s - 1), (n, width))
    labels = new((n,), "int64", "clone") if b > 1 else labels.view((n,), (1,))
    _valid = new((n,), "bool", "ne")
    counted = new((), "int64", "sum")
    correct, entropy = Tensor(new((), "fp32", "new_zeros")), Tensor(new((), "fp32", "new_zeros"))
    order = _valid_first(n)
    hidden = indexed(hidden, order, 0)
    labels = new((n,), "int64", "index")
    _bound = _rounded_up()
    loss = Tensor(new((), "fp32", "new_zeros"))

    for start in range(0, max(CHUNK, valid_tokens), CHUNK):
        length = min(CHUNK, max(0, n - start))
        some, some_labels = cut(hidden, 0, length), labels.view((length,), (1,))
        sums = checkpoint(partial(_of_chunk, weight=weight, labels=some_labels, rescale=rescale), some)
        loss = add(loss, sums[0])
        correct = add(correct, sums[1])
        entropy = add(entropy, sums[2])

    if averaged_over is None:
        averaged_over = new((), "int64", "clamp")
    return Chunked(divided(loss, averaged_over), correct, entropy, counted)


def _valid_first(n: int) -> Array:
    """A stable argsort of which labels count. The sorted flags die."""
    flags = new((n,), "int8", "to")
    _sorted, order = new((n,), "int8", "sort"), new((n,), "int64", "sort")
    del flags
    return order


def _rounded_up() -> Array:
    """The number of valid tokens, rounded up to whole chunks, at least one."""
    chunks = new((), "fp32", "div")
    whole = new((), "fp32", "ceil")
    del chunks
    some = new((), "fp32", "clamp")
    del whole
    number = new((), "int64", "to")
    del some
    return new(number.shape, "int64", "mul")


def _of_chunk(hidden: Tensor, weight: Tensor, labels: Array, rescale: attending.Steps) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of a chunk: losses, right guesses, entropies.

    The logits are rescaled as far as TRL reads it from the config: its logit_scale, its final_logit_softcapping.
    """
    logits = cast(linear_by_hand(hidden, cast(weight, hidden.dtype)), "fp32")
    if scale in rescale[:1]:
        logits = scale(logits)
    if rescale == attending.SOFTCAP:
        logits = scale(tanh(divide(logits)))
    log_p = log_softmax(logits)
    loss = nll_loss(log_p, labels)
    valid = new(labels.shape, "bool", "ne")
    correct = _guessed_right(labels)
    entropy = total_of_all(mul(neg(total(mul(exp(log_p), log_p), 1)), Tensor(valid)))
    return loss, correct, entropy


def _guessed_right(labels: Array) -> Tensor:
    guesses = new(labels.shape, "int64", "argmax")
    equal = new(labels.shape, "bool", "eq")
    del guesses
    counting = new(labels.shape, "bool", "bitwise_and")
    del equal
    count = new((), "int64", "sum")
    del counting
    return cast(Tensor(count), "fp32")
