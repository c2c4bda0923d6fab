"""What a family writes with: it names weights, keeps the module path, and asks the method at each hook.

A family's forward is run once on a throw-away timeline to learn which parameters exist ("declaring"),
then the loading phase creates them in the real model's order, and every later run finds them by name.
So a parameter is described in one place: where the forward uses it.
"""

from collections.abc import Callable, Iterable
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

from memcalc.errors import InvalidWorkload
from memcalc.tape import attending, blocks
from memcalc.tape.chunked import chunked_loss
from memcalc.tape.declared import Adapter, Common, Declared, Kind, Lookup, Sizes
from memcalc.tape.layer import Given, Layer
from memcalc.tape.layouts import Shape
from memcalc.tape.ops.elementwise import cast, mul
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.norm import layer_norm
from memcalc.tape.prelude import Batch, Cache, Output
from memcalc.tape.tape import Array, Leaf, Tensor, new, tape
from memcalc.tape.weights import LINEAR, Plain, Weight

P = ParamSpec("P")
R = TypeVar("R")


class Hooks(Protocol):
    """What the builder asks of a method (methods/base.py)."""

    def linear(self, m: "Builder", x: Tensor, w: Weight, name: str) -> Tensor: ...
    def layer(self, m: "Builder", x: Tensor, given: Given, run: Callable[[Tensor, Given], R]) -> R: ...
    def attention(
        self,
        m: "Builder",
        name: str,
        x: Tensor,
        run: Callable[[], tuple[Tensor, Tensor | None]],
        turned: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor | None]: ...
    def attend(
        self,
        m: "Builder",
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Array | None,
        run: Callable[[Tensor, Tensor, Tensor, Array | None], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor | None]: ...
    def table(self, m: "Builder", weight: Tensor, name: str) -> Tensor: ...
    def copy_of(self, module: str, targets: frozenset[str]) -> str: ...
    def feed(self, m: "Builder", batch: Batch, model: Callable[[Batch], Output]) -> Output: ...


class Builder:
    """One model under one method, being written or run."""

    def __init__(
        self,
        method: Hooks,
        layer_count: int,
        attention: attending.Attention,
        targets: frozenset[str],
        sizes: Sizes,
        *,
        declaring: bool,
        lookup: Lookup | None = None,
        checkpointing: Literal["none", "reentrant", "non-reentrant"] = "none",
        checkpoint_every: int = 1,
        training: bool = True,
        use_cache: bool = False,
        inputs_require_grad: bool = False,
        noisy_embeddings: bool = False,
        loss_in_chunks: bool = False,
        common: Common = Common(),  # noqa: B008 - a tuple, nobody changes it
    ) -> None:
        self.method = method
        self.layer_count = layer_count
        self.attention = attention
        self.sizes = sizes
        self.targets = targets  # full names of the adapted linear layers
        self.common = common
        self.declaring = declaring
        self.checkpointing = checkpointing
        self.checkpoint_every = checkpoint_every  # of so many layers the first
        self.training = training
        self.use_cache = use_cache
        self.inputs_require_grad = inputs_require_grad  # checkpointing over a frozen embedding
        self.noisy_embeddings = noisy_embeddings  # NEFTune
        self.loss_in_chunks = loss_in_chunks
        self.declared: dict[str, Declared] = {}
        self.declared_adapters: dict[str, Adapter] = {}
        self.parameters: dict[str, Tensor] = {}
        self.weights: dict[str, Weight] = {}
        self.made_once: dict[str, Array] = {}  # what modules make at their first call and keep
        self.prefix: Cache | None = None  # the cache that the forward under way began with, for methods that change it
        self.noted: dict[str, Tensor] = {}  # what one of the method's hooks leaves for another
        self.steps = 0  # of the optimizer, which are behind
        self.attends_by_interface = False  # once declared: whether attention goes through `attending.attention`
        self.kernels_taken: dict[str, None] = {}  # sdpa's, in order of first use
        self.lookup = lookup  # of the word embeddings, once a forward has told
        self.path = ""

    def call(self, name: str, module: Callable[Concatenate["Builder", P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a submodule: inside, names are relative to it. Its arguments live until it returns."""
        outer, scope = self.path, tape.scope
        self.path = tape.scope = f"{outer}.{name}" if outer else name
        try:
            return module(self, *args, **kwargs)
        finally:
            self.path, tape.scope = outer, scope

    def parameter(self, name: str, shape: Shape, kind: Kind, dtype: str = "") -> Tensor:
        """The parameter or buffer `name` of the module under way."""
        full = f"{self.path}.{name}" if self.path else name
        found = self.parameters.get(full)
        if found is None:
            assert self.declaring, f"{full} was not declared"
            self.declared[full] = Declared(shape, kind, dtype)
            found = self.parameters[full] = Tensor(new(shape, dtype or "fp32", full))
        return found

    def adapter(
        self,
        name: str,
        part: str,
        shape: Shape,
        kind: Kind | None = None,
        of: str = "",
        dtype: str = "",
        late: bool = False,
        on_device: bool = False,
        frozen: bool = False,
    ) -> Tensor:
        """The method's own parameter or buffer `part`, next to the base module `name` (its full path)."""
        full = f"{name}.{part}"
        found = self.parameters.get(full)
        if found is None:
            assert self.declaring, f"{full} was not declared"
            self.declared_adapters[full] = Adapter(
                part, shape, kind, of, dtype, late=late, on_device=on_device, frozen=frozen
            )
            found = self.parameters[full] = Tensor(new(shape, dtype or "fp32", full))
        return found

    def shared(
        self, name: str, part: str, shape: Shape, kind: Kind | None = None, *, remade: bool = False, owner: str = ""
    ) -> Tensor:
        """What targets share, `name` being the one that asks: a parameter of the owner, or its buffer.

        owner: the target to which it belongs; by default the first one, and all share it.
        """
        owner = owner or self.common.first
        if self.declaring and name != owner:
            return Tensor(new(shape, "fp32", part))
        full = f"{owner}.{part}"
        if self.declaring and full not in self.parameters:
            self.declared_adapters[full] = Adapter(part, shape, kind, owner=owner, remade=remade)
            self.parameters[full] = Tensor(new(shape, "fp32", full))
        return self.parameters[full]

    def own(self, name: str, part: str, shape: Shape, kind: Kind) -> Tensor:
        """The parameter or buffer `part` of the submodule `name`, or of the copy that the method puts in its place."""
        base = self.parameter(f"{name}.{part}", shape, kind)
        full = f"{self.path}.{name}" if self.path else name
        copy = self.method.copy_of(full, self.targets)
        return self.adapter(full, f"{copy}.{part}", shape, kind, f"{full}.{part}") if copy else base

    def new_cache(self, batch: Batch, windows: tuple[int, ...] = ()) -> Cache | None:
        """The batch's cache, or DynamicCache() where the run fills one: the model's output keeps it.

        `windows`: keys kept by each layer.
        """
        if batch.cache is not None:
            return batch.cache
        return Cache(windows) if self.use_cache and not self.declaring else None

    @property
    def dtype(self) -> str:
        """The model's own (model.dtype): that of its first parameter, the word embeddings."""
        words = self.lookup
        assert words is not None, "the model has not been declared"
        first = self.parameters.get(f"{words.path}.{words.name}.weight")
        return "fp32" if first is None else first.dtype  # no matter while it is declared

    # ---- modules ---------------------------------------------------------------------------------
    def linear(
        self,
        x: Tensor,
        name: str,
        d_out: int,
        bias: bool = False,
        kind: Literal["linear", "conv1d", "matmul"] = "linear",
    ) -> Tensor:
        """A linear layer: (..., d_in) -> (..., d_out)."""
        full = f"{self.path}.{name}" if self.path else name
        outer, tape.scope = tape.scope, full
        weight = self.weights.get(full)
        if weight is None:
            shape = (x.shape[-1], d_out) if kind == "conv1d" else (d_out, x.shape[-1])
            own = self.own(name, "weight", shape, kind)
            weight = LINEAR[kind](own, self.own(name, "bias", (d_out,), "bias") if bias else None)
        out = self.method.linear(self, x, weight, full)
        tape.scope = outer
        return out

    def embedding(self, batch: Batch, name: str, rows: int, width: int, *, scaled: bool = False) -> Tensor:
        """Token embeddings (b, s, width), or what the batch gives in their place.

        `scaled`: by a factor that the module keeps as a buffer.
        """
        lookup = Lookup(self.path, name, rows, width, scaled)
        if self.lookup is None:
            self.lookup = lookup
        return self._looked_up(batch.ids, lookup) if batch.embeds is None else batch.embeds

    def word_embeddings(self, ids: Array, *, alone: bool = False) -> Tensor:
        """The model's token embeddings, looked up from outside of it: ids (b, s) -> (b, s, width).

        alone: without what hooks make of them.
        """
        assert self.lookup is not None, "the model has not been declared"
        return self._looked_up(ids, self.lookup, alone=alone)

    def _looked_up(self, ids: Array, words: Lookup, *, alone: bool = False) -> Tensor:
        outer, self.path = self.path, words.path
        scope, tape.scope = tape.scope, f"{self.path}.{words.name}"
        out = self._rows(ids, words)
        if not alone and self.inputs_require_grad and out.node is None and tape.grad:
            out = Tensor(out.data, Leaf(out.data, "activations"))
        if not alone and self.noisy_embeddings:
            out = blocks.with_noise(out)
        self.path, tape.scope = outer, scope
        return out

    def _rows(self, ids: Array, words: Lookup) -> Tensor:
        """The embedding's own forward, which hooks follow."""
        name = words.name
        weight = self.method.table(self, self.own(name, "weight", (words.rows, words.width), "embedding"), tape.scope)
        out = embedding(ids, weight)
        if words.scaled:
            out = mul(out, cast(self.own(name, "embed_scale", (), "buffer"), weight.dtype))
        return out

    def positions(self, places: Array, name: str, rows: int, width: int) -> Tensor:
        """Learned positions: (1 or b, s) -> (1 or b, s, width)."""
        outer, tape.scope = tape.scope, f"{self.path}.{name}"
        out = embedding(places, self.own(name, "weight", (rows, width), "embedding"))
        tape.scope = outer
        return out

    def rms_norm(
        self, x: Tensor, name: str, norm: Callable[[Tensor, Tensor], Tensor] = blocks.rms_norm, shape: Shape = ()
    ) -> Tensor:
        """A norm of one weight, the last dim's or of a `shape` of its own."""
        outer, tape.scope = tape.scope, f"{self.path}.{name}"
        out = norm(x, self.own(name, "weight", shape or (x.shape[-1],), "norm"))
        tape.scope = outer
        return out

    def layer_norm(self, x: Tensor, name: str, *, affine: bool = True) -> Tensor:
        """nn.LayerNorm over the last dim; without weight and bias if it is not `affine`."""
        outer, tape.scope = tape.scope, f"{self.path}.{name}"
        if not affine:
            out = layer_norm(x)
            tape.scope = outer
            return out
        width = (x.shape[-1],)
        weight = self.own(name, "weight", width, "norm")
        out = layer_norm(x, weight, self.own(name, "bias", width, "norm"))
        tape.scope = outer
        return out

    def causal_lm(
        self,
        hidden: Tensor,
        name: str,
        vocab: int,
        tied_to: str,
        batch: Batch,
        cache: Cache | None,
        rescale: Iterable[Callable[[Tensor], Tensor]] = (),
    ) -> Output:
        """The head and the loss: hidden (b, s, hidden) -> logits (b, s, vocab); `tied_to` names the embedding or is "".

        The hidden states are a local of the model's forward: they live until the loss is computed. `rescale` are
        steps that the model puts the logits through first.
        """
        if tied_to:
            self.weights[name] = Plain(self._tied(name, tied_to))
        if self.loss_in_chunks and batch.labels is not None:
            return self._loss_in_chunks(hidden, name, tied_to, batch, tuple(rescale))
        logits = self.linear(hidden, name, vocab)
        logits.data.settle("logits_loss")
        outer, tape.category = tape.category, "logits_loss"
        for step in rescale:
            logits = step(logits)
        loss = None if batch.labels is None else blocks.causal_lm_loss(logits, batch.labels, batch.items)
        tape.category = outer
        return Output(loss, logits, cache)

    def _loss_in_chunks(
        self, hidden: Tensor, name: str, tied_to: str, batch: Batch, rescale: attending.Steps
    ) -> Output:
        """TRL's loss, which reads the head's weight and never calls the head: the output has no logits."""
        if self.targets & {name, tied_to.rpartition(".")[0]}:
            raise InvalidWorkload(
                "--loss chunked-nll reads the head's weight alone: it cannot go with an adapted head (TRL refuses it)"
            )
        assert batch.labels is not None
        before = batch.labels.shape[1] - batch.ids.shape[1]  # virtual tokens, whose labels are ignored
        valid = batch.ids.shape[0] * (batch.ids.shape[1] - (before == 0))
        valid -= batch.mask is not None and valid > 0  # the last token of the last row
        outer, tape.category = tape.category, "logits_loss"
        weight = self.weights[name].dense()
        sums = chunked_loss(hidden, weight, batch.labels, batch.items, valid, rescale)
        tape.category = outer
        return Output(sums.loss, None, None, sums)

    def _tied(self, name: str, tied_to: str) -> Tensor:
        """The weight that a head shares with the embedding's base; a copy of the head's is a weight of its own."""
        shared = self.parameters[tied_to]
        copy = self.method.copy_of(name, self.targets)
        return self.adapter(name, f"{copy}.weight", shared.shape, "linear", tied_to) if copy else shared

    def handed(self, batch: Batch) -> Array | None:
        """The count of labels as the model's layers are handed it: not at all where the loss is computed in chunks."""
        return None if self.loss_in_chunks else batch.items

    def layers(
        self,
        name: str,
        layer: Callable[Concatenate["Builder", Tensor, Given, P], R],
        held: object = None,
        *,
        positional: bool = False,
    ) -> list[Layer[P, R]]:
        """The repeated layers `name.0`, `name.1`, …, to be called one after the other.

        held: what each call is handed besides what it uses, such as the count of labels. A checkpoint keeps it.
        positional: the model passes arguments by position: a reentrant checkpoint saves them, and keeps only `held`.
        """
        path = f"{self.path}.{name}"
        return [
            Layer(self, f"{path}.{index}", layer, held, positional, index % self.checkpoint_every == 0)
            for index in range(self.layer_count)
        ]
