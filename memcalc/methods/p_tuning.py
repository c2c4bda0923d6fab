"""P-tuning: virtual tokens before the input, whose embeddings a small network makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.errors import NotModelled
from memcalc.kernels import CUDNN_SPACES_LEFT_OUT
from memcalc.methods.base import Kind, Method, check_dropout
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import relu
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.recurrent import in_one_block
from memcalc.tape.ops.views import view
from memcalc.tape.prompts import behind_prompts, made_linear, made_lstm, made_parameter
from memcalc.tape.tape import Array, Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output

LSTM_ON_CPU = (
    "--encoder-reparameterization-type LSTM cannot go with --device cpu here: oneDNN runs it there, and what that "
    "allocates is its own; memcalc profile measures it"
)
_LSTM = "lstm_head"


@final
@dataclass(frozen=True, slots=True)
class PTuning(Method):
    """P-tuning: an encoder makes virtual tokens out of embeddings (Liu et al. 2021, arXiv:2103.10385, section 3).

    Trainable parameters, fp32, with h = encoder_hidden_size: virtual_tokens * hidden of the embeddings; of the MLP
    (hidden + 1) * h + (h + 1) * h + (h + 1) * hidden; of the paper's LSTM, which runs both ways, 8 h (d + h + 2) a
    layer, d being what it is given (hidden at first, then 2 h), and (2 h + 1) * 2 h + (2 h + 1) * hidden of the MLP
    behind it. Keeps for backward, once for all rows: as prompt tuning, and of the MLP its input and the result of each
    ReLU; of the LSTM its input, its output, and the states that it begins with. Only what it makes is saved.
    The LSTM is cuDNN's: its weights lie in one block, and so do their gradients. What it keeps and needs besides, the
    library alone can tell: both tiers leave it out, and say so.
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

    @property
    def left_out(self) -> str:
        return CUDNN_SPACES_LEFT_OUT if self._recurrent else ""

    @property
    def _recurrent(self) -> bool:
        return self.encoder_reparameterization_type == "LSTM"

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        def encoder(numbers: Array) -> Tensor:
            made = m.call("prompt_encoder.default", self._encode, numbers)
            return repeat(made, numbers.shape[0])

        return behind_prompts(m, batch, model, self.virtual_tokens, encoder)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """PromptEncoder.to: part by part; once an LSTM's weights are there, they become views of one block."""
        recurrent = [name for name in m.declared_adapters if name.startswith(f"{module}.{_LSTM}.")]
        if recurrent:
            yield "embedding.weight"
            yield from (name.removeprefix(f"{module}.") for name in recurrent)
            views = in_one_block([m.parameters[name].data for name in recurrent], "adapter")
            m.parameters.update((name, Tensor(array)) for name, array in zip(recurrent, views, strict=True))
            del views
        yield ""

    def _encode(self, m: "Builder", numbers: Array) -> Tensor:
        """PromptEncoder for one row, or in use its stored answer: (1, v, hidden)."""
        v, width = self.virtual_tokens, m.sizes.hidden
        inner = self.encoder_hidden_size or width
        weight = made_parameter(m, "embedding.weight", (v, width), "embedding")
        if not m.training:
            return view(weight, (1, v, width))
        embeds = embedding(numbers.view((1, v), numbers.strides), weight)
        if self._recurrent:
            if tape.device == "cpu":
                raise NotModelled(LSTM_ON_CPU)
            hidden = made_lstm(m, embeds, _LSTM, inner, self.encoder_num_layers)
            hidden = relu(made_linear(m, hidden, "mlp_head.0", 2 * inner))
            return made_linear(m, hidden, "mlp_head.2", width)
        hidden = relu(made_linear(m, embeds, "mlp_head.0", inner))
        hidden = relu(made_linear(m, hidden, "mlp_head.2", inner))
        return made_linear(m, hidden, "mlp_head.4", width)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """peft saves the virtual tokens, and nothing of what makes them."""
        return nbytes if name.endswith(".embedding.weight") else 0

    def peft_config(self) -> dict[str, Any]:
        """An MLP is told nothing of the LSTM: peft would warn of it, and its warning fails where the type is a word."""
        of_lstm = {"encoder_num_layers": self.encoder_num_layers, "encoder_dropout": self.encoder_dropout}
        return {
            "peft_type": "P_TUNING",
            "num_virtual_tokens": self.virtual_tokens,
            "encoder_reparameterization_type": self.encoder_reparameterization_type,
            "encoder_hidden_size": self.encoder_hidden_size or None,
            **(of_lstm if self._recurrent else {}),
        }


METHOD = PTuning
