"""Uni-LoRA: low-rank matrices whose entries are all picked from one short vector."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, mul
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import indexed
from memcalc.tape.tape import Tensor, new, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_VECTOR = "unilora_theta_d.default"
_INDICES = ("unilora_indices_A.default", "unilora_indices_B.default")
_SCALES = ("unilora_scales_A.default", "unilora_scales_B.default")
_CODES = {4: "uint8", 8: "int8"}  # of packed weights


@final
@dataclass(frozen=True, slots=True)
class UniLora(OnLinears):
    """Uni-LoRA: y = W x + B A x, each entry of all targets' A and B one of a vector's, scaled by how often that is
    picked (Li et al. 2025, arXiv:2506.00799, section 3).

    Trainable parameters: theta_d_length in all. Keeps for backward: as LoRA, whose matrices are made anew in every
    forward. Beside each matrix stand, frozen, an int64 and a scale for every entry.
    """

    rank: int = option(4, "--rank", "rank of the update", aliases=("--r", "--unilora-r"))
    theta_d_length: int = option(256, "--theta-d-length", "length of the vector", size=True)
    target: tuple[str, ...] = target_option()
    unilora_dropout: float = option(0.0, "--unilora-dropout", "dropout of the adapters' input", aliases=("--dropout",))
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "unilora_only"))
    save_indices: bool = option(
        False, "--save-indices/--no-save-indices", "the checkpoint holds which entries are picked too"
    )
    proj_seed: int = option(42, "--proj-seed", "seed of which entries are picked", least=0)
    init_theta_d_bound: float = option(0.02, "--init-theta-d-bound", "largest number of the vector at first")

    def __post_init__(self) -> None:
        check_dropout("--unilora-dropout", self.unilora_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/unilora/layer.py, Linear.forward. Its call keeps the first x."""
        shapes = (self.rank, w.d_in), (w.d_out, self.rank)
        indices, scales = (
            [m.adapter(name, part, shape, "buffer", dtype=dtype) for part, shape in zip(parts, shapes, strict=True)]
            for parts, dtype in ((_INDICES, "int64"), (_SCALES, ""))
        )
        vector = m.shared(name, _VECTOR, (self.theta_d_length,))
        result = w.linear(x)
        a = mul(indexed(vector, indices[0].data, 0), scales[0])
        b = mul(indexed(vector, indices[1].data, 0), scales[1])
        x_cast = cast(x, vector.dtype)
        rate = self.unilora_dropout if m.training else 0.0
        result = add(result, linear(linear(dropout(x_cast, rate), a), b))
        return cast(result, x.dtype)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """UniLoraLayer.update_layer."""
        if module == m.common.first:
            yield _VECTOR
        yield from _INDICES

    def finish(self, m: "Builder", modules: Sequence[str]) -> None:
        """UniLoraModel._assign_unilora_indices_and_scales: all indices are drawn anew on the host, then moved with
        their scales, which take the dtype of the weight, be it one of codes.
        """
        held = {module: [m.parameters.pop(f"{module}.{part}").shape for part in _INDICES] for module in modules}
        for module, shapes in held.items():
            tape.scope, packed = module, m.weights.get(module)
            dtype = m.parameters[f"{module}.weight"].dtype if packed is None else _CODES[packed.packed]
            for parts, kind in ((_SCALES, dtype), (_INDICES, "int64")):
                for part, shape in zip(parts, shapes, strict=True):
                    m.parameters[f"{module}.{part}"] = Tensor(new(shape, kind, part, "adapter"))

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        return nbytes if self.save_indices or not buffer else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "UNILORA",
            "r": self.rank,
            "theta_d_length": self.theta_d_length,
            "target_modules": self.target_modules,
            "unilora_dropout": self.unilora_dropout,
            "bias": self.bias,
            "save_indices": self.save_indices,
            "proj_seed": self.proj_seed,
            "init_theta_d_bound": self.init_theta_d_bound,
        }


METHOD = UniLora
