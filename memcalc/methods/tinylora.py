"""TinyLoRA: an update within a weight's largest singular vectors, mixed from random matrices by a short vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.einsum import contracted
from memcalc.tape.ops.elementwise import add, cast, dropout
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_A, _B, _P = "tinylora_A.default", "tinylora_B.default", "tinylora_P.default"


@final
@dataclass(frozen=True, slots=True)
class TinyLora(OnLinears):
    """TinyLoRA: y = W x + B R A x, B A the weight's largest singular values and vectors, R the sum of `u` random
    matrices, each times a number that trains (Morris et al. 2026, arXiv:2602.04118, section 3).

    Trainable parameters: u per target; fewer where `weight_tying` has several targets share theirs. Keeps for backward,
    per target: A x and R A x in the adapters' dtype, but no input. Making it takes a singular value decomposition of
    the weight in fp32; what cuSOLVER allocates for itself is in neither estimate nor trace.
    """

    rank: int = option(2, "--rank", "singular vectors", aliases=("--r", "--tinylora-r"))
    u: int = option(64, "--u", "random matrices, and numbers that train", size=True)
    weight_tying: float = option(0.0, "--weight-tying", "share of targets that take others' numbers, 0 to 1")
    target: tuple[str, ...] = target_option()
    tinylora_dropout: float = option(
        0.0, "--tinylora-dropout", "dropout of the adapters' input", aliases=("--dropout",)
    )
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "tinylora_only"))
    save_projection: bool = option(
        True, "--save-projection/--no-save-projection", "the checkpoint holds the random matrices too"
    )
    projection_seed: int = option(42, "--projection-seed", "seed of the random matrices", least=0)
    init_v_bound: float = option(0.02, "--init-v-bound", "largest of the numbers at first, where they are drawn")

    def __post_init__(self) -> None:
        check_dropout("--tinylora-dropout", self.tinylora_dropout)
        if not 0 <= self.weight_tying <= 1:
            raise InvalidWorkload(f"--weight-tying must be from 0 to 1, not {self.weight_tying}")

    @property
    def layers_alike(self) -> bool:
        """The numbers of all layers stand in the first."""
        return False

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/tinylora/layer.py, Linear.forward."""
        rank = min(self.rank, w.d_in, w.d_out)
        a = m.adapter(name, _A, (rank, w.d_in), "buffer")
        b = m.adapter(name, _B, (w.d_out, rank), "buffer")
        random = m.adapter(name, _P, (self.u, rank, rank), "buffer")
        if m.declaring:
            for part in dict.fromkeys(self._numbers(m, target) for target in m.common.targets):
                m.shared(name, part, (self.u,))
        numbers = m.shared(name, self._numbers(m, name), (self.u,))
        result = w.linear(x)
        mixed = contracted(numbers, cast(random, numbers.dtype), "i,ijk->jk")
        x_dropped = dropout(x, self.tinylora_dropout if m.training else 0.0)
        x_dropped = cast(x_dropped, a.dtype)
        h = linear(x_dropped, a)
        h = linear(h, mixed)
        delta = linear(h, b)
        result = add(result, delta)
        return cast(result, x.dtype)

    def _numbers(self, m: "Builder", module: str) -> str:
        """Where below the first target the numbers of this one stand. Source: model.py, _create_and_replace."""
        count = len(m.common.targets)
        groups = max(1, round(count * (1 - self.weight_tying)))
        index = m.common.targets.index(module) // max(1, count // groups)
        return f"tinylora_v.default.{min(index, groups - 1)}"

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """TinyLoraLayer._init_svd, _init_projection; the numbers are there before."""
        weight = m.parameters.get(f"{module}.weight")
        if weight is None:
            raise InvalidWorkload(
                f"--quant cannot go with --method tinylora: peft decomposes the weight of {module}, no packed one"
            )
        from memcalc.methods.of_lora import from_weight

        shape, dtype = weight.shape, weight.dtype
        del weight
        (rank, d_in), (d_out, _) = (m.declared_adapters[f"{module}.{part}"].shape for part in (_A, _B))
        own = self._numbers(m, module)
        if (full := f"{m.common.first}.{own}") not in m.parameters:
            m.parameters[full] = Tensor(new((self.u,), dtype, own, "adapter"))
        held = [from_weight.raised(shape, dtype), *from_weight.svd(d_out, d_in)]
        if dtype != "fp32":
            held += [new(part, dtype, "to", "adapter") for part in ((d_out, rank), (rank,), (rank, d_in))]
        held.append(new((rank,), dtype, "sqrt", "adapter"))
        yield _A
        # the vectors come by columns, and are laid out anew
        by_columns = new((d_out, rank), dtype, "mul", "adapter") if rank > 1 else None
        yield _B
        del by_columns
        held.clear()
        yield _P

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        return nbytes if self.save_projection or not name.endswith(_P) else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "TINYLORA",
            "r": self.rank,
            "u": self.u,
            "weight_tying": self.weight_tying,
            "target_modules": self.target_modules,
            "tinylora_dropout": self.tinylora_dropout,
            "bias": self.bias,
            "save_projection": self.save_projection,
            "projection_seed": self.projection_seed,
            "init_v_bound": self.init_v_bound,
        }


METHOD = TinyLora
