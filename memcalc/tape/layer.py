"""A call of one of a model's repeated layers, checkpointed where the run says so."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar

from memcalc.tape.checkpoint import checkpoint, checkpoint_reentrant
from memcalc.tape.tape import Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

P = ParamSpec("P")
R = TypeVar("R")


class Layer(Generic[P, R]):
    """One of the repeated layers; calling it checkpoints it if the run says so."""

    __slots__ = ("checkpointed", "held", "m", "module", "path", "positional")

    def __init__(
        self,
        m: "Builder",
        path: str,
        module: Callable[Concatenate["Builder", Tensor, P], R],
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

    def __call__(self, x: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        def run(x: Tensor) -> R:
            m, outer, scope = self.m, self.m.path, tape.scope
            m.path = tape.scope = self.path
            try:
                return self.module(m, x, *args, **kwargs)
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
