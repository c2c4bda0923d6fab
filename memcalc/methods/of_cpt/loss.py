"""CPT's loss: that of labels which it finds by the types of tokens, those within the prompt too.

The model computes its own loss before, and this one takes its place.
"""

from typing import NamedTuple

from memcalc.tape.ops.elementwise import mul
from memcalc.tape.ops.loss import log_softmax, nll_losses
from memcalc.tape.ops.placing import taken, where_true
from memcalc.tape.ops.reductions import average
from memcalc.tape.ops.views import contiguous, cut, view
from memcalc.tape.tape import Array, Tensor, new, tape


class Labelled(NamedTuple):
    """Which positions of the logits' rows, but for each row's first, have a label by their type."""

    in_row: int
    types: int  # of how many types they are
    ignored: int = 0  # of all rows', those whose label does not count


def loss_of(logits: Tensor, labels: Array, types: Array, labelled: Labelled) -> Tensor:
    """The mean over labels, weighted: logits (b, s, vocab), labels and types (b, s).

    Source: peft 0.21.2, tuners/cpt/model.py, CPTEmbedding.calculate_loss. Weights by position are made, whatever they
    are.
    """
    outer, tape.category = tape.category, "logits_loss"
    b, s, vocab = logits.shape
    shift_logits = contiguous(cut(logits, 1, s - 1))
    shift_labels, shift_types = _shifted(labels), _shifted(types)
    counted = _differs(shift_labels)
    each = nll_losses(log_softmax(view(shift_logits, (b * (s - 1), vocab))), _flat(shift_labels))
    each = view(each, (b, s - 1))
    weights = _weights(counted)
    held = _by_type(b, s - 1, labelled)
    count = b * labelled.in_row - labelled.ignored
    loss = average(mul(where_true(each, counted, count), where_true(Tensor(weights), counted, count)), None)
    del held, shift_types
    tape.category = outer
    return loss


def _shifted(x: Array) -> Array:
    """x[..., 1:].contiguous(): of one row a view."""
    b, s = x.shape
    return new((b, s - 1), x.dtype, "clone") if b > 1 else x.view((1, s - 1), x.strides)


def _flat(x: Array) -> Array:
    return x.view((x.shape[0] * x.shape[1],), (1,))


def _differs(labels: Array) -> Array:
    copied = new(labels.shape, labels.dtype, "clone")
    counted = new(labels.shape, "bool", "ne")
    del copied
    return counted


def _weights(counted: Array) -> Array:
    copied = new(counted.shape, "bool", "clone")
    weights = new(counted.shape, "fp32", "to")
    del copied
    return weights


def _by_type(rows: int, s: int, labelled: Labelled) -> object:
    """Row by row a weight for each position by the type of its label; what the names of the last row hold."""
    found: Array | None = None
    types: Array | None = None
    weights: Array | None = None
    one: Array | None = None
    for _ in range(rows):
        found = _fours(s)
        types = _distinct(labelled)
        weights = new((s,), "fp32", "ones_like")
        flipped = new((labelled.types,), "fp32", "flip")
        for _ in range(labelled.types):
            one = flipped  # a view of it
            new((s,), "bool", "eq")
        del flipped
    return found, types, weights, one


def _fours(s: int) -> Array:
    """Positions of positive types that are multiples of four."""
    positive = new((s,), "bool", "gt")
    remainder = new((s,), "fp32", "remainder")
    even = new((s,), "bool", "eq")
    del remainder
    both = new((s,), "bool", "bitwise_and")
    del positive, even
    return both


def _distinct(labelled: Labelled) -> Array:
    """The labels' types, each once."""
    labels = taken((labelled.in_row,), "fp32", (labelled.in_row, 1))
    distinct = new((labelled.types,), "fp32", "unique")
    del labels
    return distinct
