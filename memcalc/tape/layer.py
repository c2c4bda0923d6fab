"""A call of one of a model's repeated layers, checkpointed where the run says so."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from memcalc.tape.checkpoint import checkpoint, checkpoint_reentrant
from memcalc.tape.prelude import Cache
from memcalc.tape.tape import Array, Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

P = ParamSpec("P")
R = TypeVar("R")


class Given(NamedTuple):
    """What a layer is given beside its input, by the model that has made it for all layers."""

    mask: Array | None
    places: Array | None
    cache: Cache | None
    turned: tuple[Tensor, Tensor] | None = None  # cosine and sine by position
    alibi: Array | None = None

    @property
    def cos(self) -> Tensor:
        assert self.turned is not None
        return self.turned[0]

    @property
    def sin(self) -> Tensor:
        assert self.turned is not None
        return self.turned[1]


class Layer(Generic[P, R]):
    """One of the repeated layers; calling it checkpoints it if the run says so."""

    __slots__ = ("checkpointed", "held", "m", "module", "path", "positional")

    def __init__(
        self,
        m: "Builder",
        path: str,
        module: Callable[Concatenate["Builder", Tensor, Given, P], R],
        held: object,
        positional: bool,
        checkpointed: bool,
    ) -> None:
        self.checkpointed = checkpointed  # where the run checkpoints at all
        self.held = held
        self.m = m
        self.path = path
        self.module = module
        self.positional = positional

    def __call__(self, x: Tensor, given: Given, *args: P.args, **kwargs: P.kwargs) -> R:
        def run(x: Tensor) -> R:
            m, outer, scope = self.m, self.m.path, tape.scope
            m.path = tape.scope = self.path
            try:
                return m.method.layer(m, x, given, lambda x, given: self.module(m, x, given, *args, **kwargs))
            finally:
                m.path, tape.scope = outer, scope

        if self.m.checkpointing == "none" or not self.checkpointed:
            return run(x)
        scope, tape.scope = tape.scope, self.path  # what a checkpoint itself allocates is its layer's
        if self.m.checkpointing == "reentrant":
            outputs = checkpoint_reentrant(run, x, (self.held,) if self.positional else None)
        else:
            outputs = checkpoint(run, x)
        tape.scope = scope
        return outputs
