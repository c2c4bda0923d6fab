"""Cartridge: keys and values of virtual tokens before each layer's own, the first of them frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Kind, Method
from memcalc.methods.prefix_tuning import heads_of, windows_of
from memcalc.options import LARGEST, option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.views import cat, expand, view
from memcalc.tape.prompts import behind_prefix, made_parameter
from memcalc.tape.tape import Array, Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output


@final
@dataclass(frozen=True, slots=True)
class Cartridge(Method):
    """Cartridge: a cache of keys and values that trains, as if a corpus had been read into it; its first tokens, on
    which attention rests, stay as they are (Eyuboglu et al. 2025, arXiv:2506.06266, section 3).

    Trainable parameters, fp32, w being head_dim times the heads of K and V:
    2 * layers * w * (virtual_tokens - num_frozen_tokens). Keeps for backward: what prefix tuning keeps without a
    projection, and no numbers of tokens. Frozen and trained tokens are joined wherever peft reads the whole, for its
    device too; how they are initialized changes nothing.
    Source: peft 0.21.2, tuners/cartridge/model.py, CartridgeEncoder; peft_model.py, PeftModel.get_prompt.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )
    num_frozen_tokens: int = option(
        1, "--num-frozen-tokens", "how many of the virtual tokens, the first, do not train", least=0
    )

    def __post_init__(self) -> None:
        if self.num_frozen_tokens >= self.virtual_tokens:
            raise InvalidWorkload(
                f"--num-frozen-tokens {self.num_frozen_tokens} leaves none of the --virtual-tokens to train"
            )

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        return range(self.num_frozen_tokens + 1, LARGEST + 1)

    @property
    def layers_alike(self) -> bool:
        """The cache of all layers is one tensor: its size tells how many there are."""
        return False

    @property
    def positions_before(self) -> int:
        return self.virtual_tokens

    @property
    def takes_checkpointing(self) -> bool:
        """As prefix tuning (peft_model.py, _setup_prompt_encoder)."""
        return False

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        heads = heads_of(m)
        wide = 2 * m.layer_count * heads * m.sizes.head_dim

        def whole() -> Tensor:
            return m.call("prompt_encoder.default", self._whole, wide)

        def encoder(numbers: Array) -> Tensor:
            one = view(whole(), (1, self.virtual_tokens, wide))
            b = numbers.shape[0]
            return expand(one, (b, *one.shape[1:])) if m.training else repeat(one, b)

        return behind_prefix(m, batch, model, self.virtual_tokens, encoder, heads, windows_of(m), whole)

    def _whole(self, m: "Builder", wide: int) -> Tensor:
        """CartridgeEncoder.weight: (v, wide)."""
        frozen = self.num_frozen_tokens
        first = None
        if frozen:
            first = m.adapter(m.path, "frozen_embedding", (frozen, wide), dtype="fp32", late=True, frozen=True)
        trained = made_parameter(m, "trainable_embedding", (self.virtual_tokens - frozen, wide))
        return trained if first is None else cat(first, trained, 0)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "CARTRIDGE",
            "num_virtual_tokens": self.virtual_tokens,
            "num_frozen_tokens": self.num_frozen_tokens,
        }


METHOD = Cartridge
