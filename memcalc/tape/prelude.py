"""What goes into a model and comes out, and what it does before its layers: positions and masks.

Source: transformers 5.24.0, masking_utils.py (create_causal_mask, find_packed_sequence_indices, sdpa_mask,
eager_mask, flash_attention_mask).
"""

from dataclasses import dataclass, field

from memcalc.errors import InvalidWorkload
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.views import cat, cut
from memcalc.tape.tape import Array, Tensor, new, on_cuda, record


@dataclass(slots=True, eq=False, repr=False)
class Cache:
    """DynamicCache: K and V of each layer, alive as long as the model's output.

    Source: transformers 5.24.0, cache_utils.py, DynamicLayer, DynamicSlidingWindowLayer.
    """

    windows: tuple[int, ...] = ()  # by layer: how many positions it keeps (0: all); empty: all everywhere
    past: int = 0  # positions that were filled before the forward
    kept: list[object] = field(default_factory=list)  # by layer
    filled: list[tuple[Array | None, list[Tensor]]] = field(default_factory=list)  # by layer: as `kept`, before

    def keys(self, s: int, window: int) -> int:
        """How many keys `s` queries meet in a layer of this window."""
        cut = bool(self.windows) and 0 < window <= self.past
        return s + (window - 1 if cut else self.past)

    def fill(self, k: Tensor, v: Tensor) -> None:
        """One more layer's K and V (b, kv_heads, past, head_dim), copied behind nothing."""
        window = self._window(len(self.filled))
        size = _size_of(window)
        joined = _joined(k), _joined(v)
        self.filled.append((size, [_latest(x, window) for x in joined]))

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """K and V copied behind the past, or behind nothing, and kept; of a window the size is on the device too."""
        layer = len(self.kept)
        if self.filled:
            return self._behind_the_past(layer, k, v)
        size = _size_of(self._window(layer))
        joined = _joined(k), _joined(v)
        self.kept.append((size, joined))
        return joined

    def _behind_the_past(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The past's keys die as soon as the joined ones are there, then its values; of a window both at the end."""
        size, past = self.filled[layer]
        check_fits(past[0], k)
        if self._window(layer):
            keys, values = cat(past[0], k, 2), cat(past[1], v, 2)
            past[:] = keys, values
        else:
            past[0] = keys = cat(past[0], k, 2)
            past[1] = values = cat(past[1], v, 2)
        self.kept.append(size)
        return keys, values

    def _window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0


def _size_of(window: int) -> Array | None:
    """A window's size is made on the host."""
    return new((), "int64", "to") if window and on_cuda() else None


def _latest(x: Tensor, window: int) -> Tensor:
    """What a window keeps of its K or V."""
    return cut(x, 2, min(x.shape[2], window - 1)) if window else x


def check_fits(past: Tensor, k: Tensor) -> None:
    """Raise InvalidWorkload where a prefix has other heads than the keys that it is put before."""
    (_, past_heads, _, past_dim), (_, heads, _, dim) = past.shape, k.shape
    if (past_heads, past_dim) != (heads, dim):
        raise InvalidWorkload(
            f"peft's prefix has {past_heads} heads of {past_dim} here, and the model's keys {heads} of {dim}: "
            "they cannot be joined; take another method"
        )


@dataclass(slots=True, eq=False, repr=False)
class Batch:
    """One micro-batch on the device: ids, mask and labels, int64 (b, s)."""

    ids: Array
    labels: Array | None = None
    mask: Array | None = None  # of the past's positions too, where there is one
    items: Array | None = None  # the number of labels that the loss is averaged over, where the loop counts them
    embeds: Tensor | None = None  # given in the ids' place (b, s, hidden)
    cache: Cache | None = None  # a filled one
    tasks: Array | None = None  # the number of each row's task (b,), where the method wants it

    @property
    def shape(self) -> Shape:
        """(b, s) of what goes through the layers."""
        return self.ids.shape if self.embeds is None else self.embeds.shape[:2]


def _joined(x: Tensor) -> Tensor:
    """torch.cat of an empty tensor and x."""

    def backward(g: Array) -> list[Array]:
        return [g.view(g.shape, g.strides)]

    return record(new(x.shape, x.dtype, "cat"), (x,), backward)


@dataclass(slots=True, eq=False, repr=False)
class Output:
    """What the model returns: it keeps the logits and the KV cache alive."""

    loss: Tensor | None
    logits: Tensor | None  # None where the loss is computed without all of them
    cache: Cache | None
    besides: object = None  # what else the output keeps alive


def positions(batch: Batch, past: bool = True) -> Array:
    """arange(s) plus the number of tokens already seen, as (1, s)."""
    s = batch.shape[1]
    counted = new((s,), "int64", "arange")
    moved = new((s,), "int64", "add") if past else counted
    del counted
    return moved.view((1, s), (s, 1))


def causal_masks(
    implementation: str, dtype: str, batch: Batch, places: Array, *, cache: Cache | None, windows: tuple[int, ...]
) -> dict[int, Array | None]:
    """One mask for each window, in their order."""
    return {window: causal_mask(implementation, dtype, batch, places, cache=cache, window=window) for window in windows}


def causal_mask(
    implementation: str,
    dtype: str,
    batch: Batch,
    places: Array | None,
    *,
    cache: Cache | None,
    window: int = 0,
    written_out: bool = False,
) -> Array | None:
    """create_causal_mask, or create_sliding_window_causal_mask over `window` keys.

    None where the kernel's own causality is enough, unless the model wants it `written_out`, else the mask
    (b, 1, s, keys) that layers share.
    """
    b, s = batch.shape
    keys = s if cache is None else cache.keys(s, window)
    as_bool = new(batch.mask.shape, "bool", "to") if batch.mask is not None else None
    if places is not None and batch.mask is None and cache is None:
        _look_for_packed_sequences(b, s)
    if as_bool is not None and as_bool.shape[1] > keys:  # the window has let go of the first ones
        as_bool = _of_the_window(implementation, as_bool, keys)
    if implementation == "flash_attention_2":
        return _flash_mask(as_bool)
    skippable = not written_out and not 0 < window <= keys
    if implementation == "sdpa" and skippable and _is_causal_alone(s, keys, as_bool):
        return None
    allowed = _written_out(b, s, keys, as_bool, window)
    if implementation == "sdpa":
        return allowed
    kept = new((), dtype, "zeros")
    masked = new((), dtype, "scalar_tensor")
    chosen = new((b, 1, s, keys), dtype, "where")
    del kept, masked
    return chosen


def _of_the_window(implementation: str, as_bool: Array, keys: int) -> Array:
    """The mask's last columns, as far as they count; sdpa looks at a copy whether it needs a mask: a window does."""
    b = as_bool.shape[0]
    if implementation == "sdpa":
        counted = new((keys,), "int64", "arange")
        columns = new((keys,), "int64", "add")
        del counted
        copied = new((b, keys), "bool", "index")
        del columns, copied
    return as_bool.view((b, keys), as_bool.strides)


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


def _is_causal_alone(s: int, keys: int, as_bool: Array | None) -> bool:
    """_ignore_causal_mask_sdpa: are queries and keys equally long, or is there one query, and is nothing padded?

    A mask with one zero is asked once as a whole, and once for its part over the queries where nothing came before.
    """
    if as_bool is not None:
        for _ in range((s in (1, keys)) + (s == keys)):
            total = new((), "int64", "sum")
            answer = new((), "bool", "eq")
            del total, answer
    return as_bool is None and s in (1, keys)


def _flash_mask(as_bool: Array | None) -> Array | None:
    if as_bool is not None:
        answer = new((), "bool", "all")
        del answer
    return as_bool


def _written_out(b: int, s: int, k_len: int, as_bool: Array | None, window: int) -> Array:
    """sdpa_mask: the boolean mask (b or 1, 1, s, k_len) by broadcasting index comparisons, and with the padding's."""
    batch = new((b,), "int64", "arange")
    head = new((1,), "int64", "arange")
    queries = new((s,), "int64", "arange")
    queries = new((s,), "int64", "add")
    keys = new((k_len,), "int64", "arange")
    keys = new((k_len,), "int64", "add")
    if as_bool is None:
        allowed = _causal(s, k_len, window)
    else:
        allowed = new((), "bool", "new_ones")
        causal = _causal(s, k_len, window)
        allowed = new((1, 1, s, k_len), "bool", "bitwise_and")
        del causal
        padding = new((b, 1, 1, k_len), "bool", "index")
        allowed = new((b, 1, s, k_len), "bool", "bitwise_and")
        del padding
    del batch, head, queries, keys
    return allowed.view((b, 1, s, k_len), (allowed.strides[0] if allowed.shape[0] == b else 0, 0, k_len, 1))


def _causal(s: int, k_len: int, window: int) -> Array:
    """causal_mask_function, and with the window's (sliding_window_causal_mask_function)."""
    if not window:
        return new((1, 1, s, k_len), "bool", "le")
    allowed = new((), "bool", "new_ones")
    first = new((1, 1, s, 1), "int64", "sub")
    within = new((1, 1, s, k_len), "bool", "gt")
    del first
    allowed = new((1, 1, s, k_len), "bool", "bitwise_and")
    del within
    causal = new((1, 1, s, k_len), "bool", "le")
    allowed = new((1, 1, s, k_len), "bool", "bitwise_and")
    del causal
    return allowed
