"""Adapters beside prefix tuning: the prefix is peft's, and says what the two together take."""

from abc import ABC
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memcalc.methods.base import Method
from memcalc.methods.prefix_tuning import PrefixTuning

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output


class BesidePrefix(Method, ABC):
    """A method with adapters of our own and a prefix, of which it has the options."""

    __slots__ = ()
    virtual_tokens: int
    prefix_projection: bool
    encoder_hidden_size: int

    @property
    def prefix(self) -> PrefixTuning:
        return PrefixTuning(self.virtual_tokens, self.prefix_projection, self.encoder_hidden_size)

    @property
    def layers_alike(self) -> bool:
        return self.prefix.layers_alike

    @property
    def positions_before(self) -> int:
        return self.prefix.positions_before

    @property
    def frozen_in_use(self) -> bool:
        return self.prefix.frozen_in_use

    @property
    def takes_checkpointing(self) -> bool:
        return self.prefix.takes_checkpointing

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        return self.prefix.feed(m, batch, model)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        if not name.startswith("prompt_encoder."):
            return nbytes
        return self.prefix.saved_bytes(m, name, nbytes, buffer=buffer, targets=targets)

    def peft_config(self) -> dict[str, Any]:
        return self.prefix.peft_config()
