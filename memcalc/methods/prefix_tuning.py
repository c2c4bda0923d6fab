"""Prefix tuning: keys and values of virtual tokens before each layer's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.methods.base import Kind, Method
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import tanh
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.views import view
from memcalc.tape.prompts import behind_prefix, made_linear, made_parameter
from memcalc.tape.tape import Array, Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output

_KEEPS_WINDOWS = ("gemma2", "gemma3_text")  # model types whose prefix peft puts into a cache with windows (get_prompt)
_UNGROUPED = ("falcon",)  # whose config knows no num_key_value_heads: peft's prefix has as many heads as queries


@final
@dataclass(frozen=True, slots=True)
class PrefixTuning(Method):
    """Prefix tuning: keys and values of virtual tokens train, in every layer (Li & Liang 2021, arXiv:2101.00190).

    With the projection they are made by an MLP out of embeddings (section 4.3); without it the method is p_tuning_v2.
    Trainable parameters, fp32, w being head_dim times the heads of K and V: 2 * layers * w * virtual_tokens without the
    projection; with it w * virtual_tokens of the embeddings, and (w + 1) * h + (h + 1) * 2 * layers * w of the MLP,
    where h is encoder_hidden_size. Keeps for backward: all that the frozen model computes from the first layer's keys
    on, keys and values with the prefix before them; of the MLP its input and tanh's result for each row.
    Source: peft 0.21.2, tuners/prefix_tuning/model.py, PrefixEncoder; utils/other.py, _prepare_prompt_learning_config.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )
    prefix_projection: bool = option(
        False, "--prefix-projection/--no-prefix-projection", "an MLP makes keys and values out of embeddings"
    )
    encoder_hidden_size: int = option(
        0, "--encoder-hidden-size", "width inside the projection; 0: that of a layer's keys", least=0
    )

    @property
    def layers_alike(self) -> bool:
        """The prefix of all layers is one tensor: its size tells how many there are."""
        return False

    @property
    def positions_before(self) -> int:
        return self.virtual_tokens

    @property
    def frozen_in_use(self) -> bool:
        return False

    @property
    def takes_checkpointing(self) -> bool:
        """A layer that is run again would lengthen the cache again (peft_model.py, _setup_prompt_encoder)."""
        return False

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        heads = heads_of(m)

        def encoder(numbers: Array) -> Tensor:
            return m.call("prompt_encoder.default", self._encode, numbers, heads * m.sizes.head_dim)

        return behind_prefix(m, batch, model, self.virtual_tokens, encoder, heads, windows_of(m))

    def _encode(self, m: "Builder", numbers: Array, width: int) -> Tensor:
        """PrefixEncoder, or in use its stored answer: (b, v) -> (b, v, 2 * layers * width)."""
        v, wide = self.virtual_tokens, 2 * m.layer_count * width
        if not m.training:
            weight = made_parameter(m, "embedding.weight", (v, wide), "embedding")
            return repeat(view(weight, (1, v, wide)), numbers.shape[0])
        if not self.prefix_projection:
            return embedding(numbers, made_parameter(m, "embedding.weight", (v, wide), "embedding"))
        tokens = embedding(numbers, made_parameter(m, "embedding.weight", (v, width), "embedding"))
        hidden = made_linear(m, tokens, "transform.0", self.encoder_hidden_size or width)
        hidden = tanh(hidden)
        return made_linear(m, hidden, "transform.2", wide)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """peft saves the prefix, and nothing of what makes it."""
        prefix = 4 * self.virtual_tokens * 2 * m.layer_count * heads_of(m) * m.sizes.head_dim
        return prefix if name.endswith(".embedding.weight") else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": self.virtual_tokens,
            "prefix_projection": self.prefix_projection,
            "encoder_hidden_size": self.encoder_hidden_size or None,
        }


def heads_of(m: "Builder") -> int:
    """How many heads the prefix has."""
    return m.sizes.heads if m.sizes.model_type in _UNGROUPED else m.sizes.kv_heads


def windows_of(m: "Builder") -> tuple[int, ...]:
    """How many of its positions each layer keeps; empty: all."""
    return m.sizes.windows if m.sizes.model_type in _KEEPS_WINDOWS else ()


METHOD = PrefixTuning
IMPLIES = {"prefix_projection": True}
