"""Prompt tuning: virtual tokens before the input, of which the embeddings train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.methods.base import Kind, Method
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.views import view
from memcalc.tape.prompts import behind_prompts
from memcalc.tape.tape import Array, Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output


@final
@dataclass(frozen=True, slots=True)
class PromptTuning(Method):
    """Prompt tuning: only the embeddings of virtual tokens train (Lester et al. 2021, arXiv:2104.08691, section 2).

    Trainable parameters: virtual_tokens * hidden, fp32. Keeps for backward: as the frozen model, over a sequence
    that is longer by the virtual tokens. How they are initialized (at random, from text) changes nothing.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )

    @property
    def positions_before(self) -> int:
        return self.virtual_tokens

    @property
    def frozen_in_use(self) -> bool:
        return False

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        v, hidden = self.virtual_tokens, m.sizes.hidden

        def encoder(numbers: Array) -> Tensor:
            weight = m.adapter(
                "prompt_encoder.default", "embedding.weight", (v, hidden), "embedding", dtype="fp32", late=True
            )
            prompts = embedding(numbers.view((1, v), numbers.strides), weight) if m.training else weight
            return repeat(view(prompts, (1, v, hidden)), numbers.shape[0])

        return behind_prompts(m, batch, model, v, encoder)

    def peft_config(self) -> dict[str, Any]:
        return {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": self.virtual_tokens}


METHOD = PromptTuning
