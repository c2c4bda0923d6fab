"""LongLoRA's shifted sparse attention: in training a head sees a group of tokens, half of the heads a shifted one.

Half of the heads of queries, keys and values are rolled by half a group along the sequence; groups become rows of the
batch, attention sees each by itself, and its output is rolled back. Keys and values are rolled before they are repeated
for their queries, which is the same where their heads can be halved. The group that the roll joins out of a row's end
and its beginning is no exception, and each group is masked as the first one of its row.

Source: Chen et al. 2023, arXiv:2309.12307, algorithm 1; of the masks: LongLoRA, llama_attn_replace.py,
forward_noflashattn. realize/shifting.py does the same to real tensors.
"""

from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload
from memcalc.tape.ops.arranging import roll
from memcalc.tape.ops.views import cat, reshape, reshape_array, split, transpose, view

if TYPE_CHECKING:
    from memcalc.anatomy import Anatomy
    from memcalc.methods.base import Attend, Attended
    from memcalc.tape.tape import Array, Tensor


def check_model(model: "Anatomy") -> None:
    """Raise InvalidWorkload where attention is not called in a way in which it can be put into groups."""
    if not model.attends_by_interface:
        raise InvalidWorkload(
            f"--group-size-ratio needs attention by transformers' interface: {model.model_type} has its own"
        )


def group_size(length: int, ratio: float, kv_heads: int) -> int:
    """Tokens of a group. Raises InvalidWorkload where groups or heads cannot be halved, or groups not fill the row.

    Source: LongLoRA, llama_attn_replace.py, forward_noflashattn.
    """
    size = int(length * ratio)
    if not size or size % 2 or length % size:
        raise InvalidWorkload(
            f"--seq-len {length} cannot go with --group-size-ratio {ratio:g}: groups of {size} tokens "
            f"{'have no halves' if not size or size % 2 else 'do not divide it'}"
        )
    if kv_heads % 2:
        raise InvalidWorkload(
            f"--group-size-ratio shifts half of the heads: {kv_heads} of keys and values cannot be halved"
        )
    return size


def attend(ratio: float, q: "Tensor", k: "Tensor", v: "Tensor", mask: "Array | None", run: "Attend") -> "Attended":
    """What attention in groups gives: (b, s, heads, d)."""
    b, heads, s, d = q.shape
    size = group_size(s, ratio, k.shape[1])
    of_first = _of_first(mask, s // size, size)
    out, weights = run(_grouped(q, size), _grouped(k, size), _grouped(v, size), of_first)
    out = reshape(out, (b, s, heads, d))
    return _joined(out), weights


def _grouped(x: "Tensor", size: int) -> "Tensor":
    """(b, heads, s, d) -> (b * s / size, heads, size, d)."""
    b, heads, s, d = x.shape
    joined = _joined(transpose(x, 1, 2))
    return transpose(view(joined, (b * s // size, size, heads, d)), 1, 2)


def _joined(x: "Tensor") -> "Tensor":
    """(b, s, heads, d), the second half of the heads rolled."""
    half = x.shape[2] // 2
    still, moved = split(x, (half, half), 2)
    return cat(still, roll(moved), 2)


def _of_first(mask: "Array | None", count: int, size: int) -> "Array | None":
    """The first group's mask for each of the `count` groups: (b, 1, s, s) or (b, s), cut and repeated by a view."""
    if mask is None:
        return None
    b, *rest = mask.shape
    inner = tuple(1 if length == 1 else size for length in rest)
    repeated = mask.view((b, count, *inner), (mask.strides[0], 0, *mask.strides[1:]))
    return reshape_array(repeated, (b * count, *inner))
