"""Trainable tokens: some rows of the embedding alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy, goes_by
from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.methods.base import Method
from memcalc.options import LARGEST, option
from memcalc.tape.ops.elementwise import cast
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.placing import rows_replaced
from memcalc.tape.tape import Tensor, from_host, new
from memcalc.tape.weights import Plain

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class TrainableTokens(Method):
    """Trainable tokens: rows of the embedding train beside the frozen table, which is copied in every forward and they
    are put in; a head that is tied to it takes a copy of its own (peft 0.21.2, tuners/trainable_tokens).

    Trainable parameters: hidden per token. Keeps for backward: as the frozen model from the embedding on. Backward
    makes the gradient of the whole table, and one more of a tied head.
    """

    merges: ClassVar[bool] = True
    token_indices: tuple[str, ...] = option(
        ("0", "1"), "--token-indices", "numbers of the tokens that train; figures depend on how many they are"
    )
    target: tuple[str, ...] = option(
        (), "--target", "the embedding, by name or suffix; default: it", aliases=("--target-modules", "--targets")
    )

    def __post_init__(self) -> None:
        for token in self.token_indices:
            if not (token.isascii() and token.isdigit() and int(token) <= LARGEST):
                raise InvalidWorkload(f"--token-indices {shown(token)}: each item is a token's number, from 0")

    def targets(self, model: Anatomy) -> frozenset[str]:
        if self.target and not goes_by(model.embedding, self.target):
            raise NotModelled(f"estimate trains tokens of {model.embedding} only: memcalc trace runs other --target")
        return frozenset((model.embedding,))

    def table(self, m: "Builder", weight: Tensor, name: str) -> Tensor:
        """peft 0.21.2, tuners/trainable_tokens/layer.py, TrainableTokensLayer.get_merged_weights."""
        if name not in m.targets:
            return weight
        count, (rows, width) = len(self.token_indices), weight.shape
        if beyond := [token for token in self.token_indices if int(token) >= rows]:
            raise InvalidWorkload(f"--token-indices {beyond[0]}: the embedding has {rows} rows, from 0")
        delta = m.adapter(name, "trainable_tokens_delta.default", (count, width))
        m.adapter(name, "trainable_tokens_original.default", (count, width), "buffer")
        return _merged(weight, delta)

    def linear(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """forward_adapters over a tied head."""
        (embedding,) = m.targets or ("",)
        if not isinstance(w, Plain) or w.weight is not m.parameters.get(f"{embedding}.weight"):
            return w.linear(x)
        merged = _merged(w.weight, m.parameters[f"{embedding}.trainable_tokens_delta.default"])
        return linear(x, merged)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """TrainableTokensLayer.update_layer: rows are picked to be copied twice; their graph holds the index."""
        weight = m.parameters[f"{module}.weight"]
        count = len(self.token_indices)
        index = new((count,), "int64", "index", "adapter")
        picked = new((count, weight.shape[1]), weight.dtype, "index", "adapter")
        if frozen:
            del index
        yield ""
        del picked

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The same rows stand in the file again under a tied head's name."""
        if buffer:
            return 0
        embedding = m.parameters[f"{name.removesuffix('.trainable_tokens_delta.default')}.weight"]
        tied = any(isinstance(weight, Plain) and weight.weight is embedding for weight in m.weights.values())
        return 2 * nbytes if tied else nbytes

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "TRAINABLE_TOKENS",
            "token_indices": [int(token) for token in self.token_indices],
            "target_modules": list(self.target) or None,
        }


def _merged(weight: Tensor, delta: Tensor) -> Tensor:
    index = from_host(delta.shape[:1], "int64")
    return rows_replaced(weight, cast(delta, weight.dtype), index)


METHOD = TrainableTokens
