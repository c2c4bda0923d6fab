"""What goes into a model and comes out, and what it does before its layers: positions and masks.

Source: transformers 5.24.0, masking_utils.py (create_causal_mask, find_packed_sequence_indices, sdpa_mask,
eager_mask, flash_attention_mask).
"""

from dataclasses import dataclass

from memcalc.tape.tape import Array, Tensor, new


@dataclass(slots=True)
class Batch:
    """One micro-batch on the device: ids, mask and labels, int64 (b, s)."""

    ids: Array
    labels: Array | None = None
    mask: Array | None = None
    items: Array | None = None  # the number of labels that the loss is averaged over, where the loop counts them


@dataclass(slots=True)
class Output:
    """What the model returns: it keeps the logits and the KV cache alive."""

    loss: Tensor | None
    logits: Tensor
    cache: list[tuple[Tensor, Tensor]] | None


def positions(ids: Array, past: bool = True) -> Array:
    """arange(s) plus the tokens already seen (none), as (1, s)."""
    s = ids.shape[1]
    counted = new((s,), "int64", "arange")
    moved = new((s,), "int64", "add") if past else counted
    del counted
    return moved.view((1, s), (s, 1))


def causal_mask(implementation: str, dtype: str, ids: Array, mask: Array | None, places: Array | None, cached: bool) -> Array | None:
    """create_causal_mask: None where the kernel's own causality is enough, else the mask that layers share."""
    b, s = ids.shape
    as_bool = new(mask.shape, "bool", "to") if mask is not None else None
    if places is not None and mask is None and not cached:
        _look_for_packed_sequences(b, s)
    if implementation == "flash_attention_2":
        return _flash_mask(as_bool)
    if implementation == "sdpa" and (as_bool is None or _all(as_bool)):
        return None
    written_out = _written_out(b, s, as_bool)
    if implementation == "sdpa":
        return written_out
    kept = new((), dtype, "zeros")
    masked = new((), dtype, "scalar_tensor")
    chosen = new((b, 1, s, s), dtype, "where")
    del kept, masked
    return chosen


def _look_for_packed_sequences(b: int, s: int) -> None:
    """find_packed_sequence_indices: do positions start again within a row? They do not."""
    first = new((b, 1), "int64", "sub")
    joined = new((b, s + 1), "int64", "cat")
    difference = new((b, s), "int64", "sub")
    del joined
    changed = new((b, s), "bool", "ne")
    packed = new((b, s), "int64", "cumsum")
    del changed
    last = new((b,), "bool", "eq")
    answer = new((), "bool", "all")
    del first, difference, packed, last, answer


def _all(mask: Array) -> bool:
    """fast_all of a mask with one zero: False."""
    total = new((), "int64", "sum")
    answer = new((), "bool", "eq")
    del total, answer
    return False


def _flash_mask(as_bool: Array | None) -> Array | None:
    if as_bool is not None:
        answer = new((), "bool", "all")
        del answer
    return as_bool


def _written_out(b: int, s: int, as_bool: Array | None) -> Array:
    """sdpa_mask: the boolean mask (b, 1, s, s) by broadcasting index comparisons."""
    batch = new((b,), "int64", "arange")
    head = new((1,), "int64", "arange")
    queries = new((s,), "int64", "arange")
    queries = new((s,), "int64", "add")
    keys = new((s,), "int64", "arange")
    keys = new((s,), "int64", "add")
    causal = new((1, 1, s, s), "bool", "le")
    del batch, head, queries, keys
    return causal
