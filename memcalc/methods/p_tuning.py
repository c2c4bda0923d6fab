"""P-tuning: virtual tokens before the input, whose embeddings a small network makes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.errors import NotModelled
from memcalc.methods.base import Kind, Method, check_dropout
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import relu
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.views import view
from memcalc.tape.prompts import behind_prompts, made_linear, made_parameter
from memcalc.tape.tape import Array, Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output


@final
@dataclass(frozen=True, slots=True)
class PTuning(Method):
    """P-tuning: an encoder makes virtual tokens out of embeddings (Liu et al. 2021, arXiv:2103.10385, section 3).

    Trainable parameters, fp32, of the MLP with h = encoder_hidden_size: virtual_tokens * hidden of the embeddings, and
    (hidden + 1) * h + (h + 1) * h + (h + 1) * hidden. Keeps for backward: as prompt tuning, and of the MLP its input
    and the result of each ReLU, once for all rows. Only what it makes is saved.
    The paper's LSTM runs in cuDNN, which keeps and needs what only the library itself can tell: estimate refuses it.
    Source: peft 0.21.2, tuners/p_tuning/model.py, PromptEncoder.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )
    encoder_reparameterization_type: str = option(
        "MLP", "--encoder-reparameterization-type", "what makes the virtual tokens", choices=("MLP", "LSTM")
    )
    encoder_hidden_size: int = option(
        0, "--encoder-hidden-size", "width inside the encoder; 0: the model's own", least=0
    )
    encoder_num_layers: int = option(2, "--encoder-num-layers", "layers of the LSTM; the MLP has three")
    encoder_dropout: float = option(0.0, "--encoder-dropout", "dropout between layers of the LSTM")

    def __post_init__(self) -> None:
        check_dropout("--encoder-dropout", self.encoder_dropout)

    @property
    def positions_before(self) -> int:
        return self.virtual_tokens

    @property
    def frozen_in_use(self) -> bool:
        return False

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        if self.encoder_reparameterization_type != "MLP" and m.training:
            raise NotModelled(
                "--encoder-reparameterization-type LSTM: what cuDNN's LSTM allocates is not known; memcalc trace runs "
                "torch's own, step by step, and memcalc profile measures cuDNN's"
            )

        def encoder(numbers: Array) -> Tensor:
            made = m.call("prompt_encoder.default", self._encode, numbers)
            return repeat(made, numbers.shape[0])

        return behind_prompts(m, batch, model, self.virtual_tokens, encoder)

    def _encode(self, m: "Builder", numbers: Array) -> Tensor:
        """PromptEncoder for one row, or in use its stored answer: (1, v, hidden)."""
        v, width = self.virtual_tokens, m.sizes.hidden
        inner = self.encoder_hidden_size or width
        weight = made_parameter(m, "embedding.weight", (v, width), "embedding")
        if not m.training:
            return view(weight, (1, v, width))
        embeds = embedding(numbers.view((1, v), numbers.strides), weight)
        hidden = relu(made_linear(m, embeds, "mlp_head.0", inner))
        hidden = relu(made_linear(m, hidden, "mlp_head.2", inner))
        return made_linear(m, hidden, "mlp_head.4", width)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """peft saves the virtual tokens, and nothing of what makes them."""
        return nbytes if name.endswith(".embedding.weight") else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "P_TUNING",
            "num_virtual_tokens": self.virtual_tokens,
            "encoder_reparameterization_type": self.encoder_reparameterization_type,
            "encoder_hidden_size": self.encoder_hidden_size or None,
            "encoder_num_layers": self.encoder_num_layers,
            "encoder_dropout": self.encoder_dropout,
        }


METHOD = PTuning
