"""GLoRA: scales and shifts of a weight and of its bias, each trained in a form of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Anatomy, Target
from memcalc.errors import InvalidWorkload
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, mul, scale, sub
from memcalc.tape.ops.linear import linear, mm
from memcalc.tape.ops.views import select, view
from memcalc.tape.tape import Tensor
from memcalc.tape.weights import Plain

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.layouts import Shape
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class Glora(OnLinears):
    """GLoRA: y = (W + W * A + B) x + b + b * D + E + W C (Chavan et al. 2023, arXiv:2306.07967).

    Trainable parameters per target: A and B rank * (d_in + d_out) each; where there is a bias, C rank * (d_in + 1), D
    and E one each. As vectors A, B, D and E have d_out, and C d_in. What is none, and without a bias C, D and E, is a
    buffer of zeros. Keeps for backward, per target: the input in the base's dtype, and the weight in use, d_out x d_in;
    A and B are matrices of that size until the target is done.
    """

    rank: int = option(8, "--rank", "rank of what is low-rank", aliases=("--r", "--glora-r"), size=True)
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "glora_only"))
    config_a_b: str = option(
        "lora",
        "--config-a-b",
        "form of the weight's scale and shift",
        choices=("lora", "vector", "constant", "none"),
        aliases=("--config-A-B",),
    )
    config_c: str = option(
        "lora",
        "--config-c",
        "form of what the weight adds to the bias",
        choices=("lora", "vector", "none"),
        aliases=("--config-C",),
    )
    config_d_e: str = option(
        "constant",
        "--config-d-e",
        "form of the bias's scale and shift",
        choices=("vector", "constant", "none"),
        aliases=("--config-D-E",),
    )

    def targets(self, model: Anatomy) -> frozenset[str]:
        targets = super(Glora, self).targets(model)
        changed = self.config_a_b != "none" or self._reaches(model, targets)
        if not changed and not self.trained(model, targets):
            raise InvalidWorkload("--config-a-b none leaves nothing to train: no bias of a target is scaled or shifted")
        return targets

    def _reaches(self, model: Anatomy, targets: frozenset[str]) -> bool:
        """Whether any bias changes."""
        biases = {f"{name}.bias" for name in targets}
        return self._changes_biases and not biases.isdisjoint(model.parameters)

    @property
    def _changes_biases(self) -> bool:
        return (self.config_c, self.config_d_e) != ("none", "none")

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/glora/layer.py, GloraLinear.forward."""
        if type(w) is not Plain:
            kind = "packed" if w.packed else "a Conv1D" if w.turned else "a layer of its model's own class"
            raise InvalidWorkload(f"peft refuses this: {name} is {kind}, and GLoRA adapts plain torch.nn.Linear only")
        base = w.linear(x)
        dtype = w.weight.dtype
        of_weight, of_bias = self.config_a_b, self.config_d_e if w.bias else "none"
        a, b = (cast(self._path(m, name, part, of_weight, (w.d_out, w.d_in)), dtype) for part in "AB")
        c = cast(self._path(m, name, "C", self.config_c if w.bias else "none", (w.d_in, 1)), dtype)
        d, e = (cast(self._path(m, name, part, of_bias, (w.d_out,)), dtype) for part in "DE")
        weight = add(add(w.weight, mul(w.weight, a)), b)
        if w.bias is None:
            adapted = linear(x, weight)
        else:
            bias = add(add(add(w.bias, mul(w.bias, d)), e), view(mm(w.weight, c), (w.d_out,)))
            adapted = linear(x, weight, bias)
        result = add(base, adapted)
        result = sub(result, scale(base))
        return cast(result, base.dtype)

    def _path(self, m: "Builder", name: str, part: str, form: str, shape: "Shape") -> Tensor:
        """A GloraPath's forward: a matrix, a vector that is broadcast to it, a number or zeros."""
        path = f"glora_{part}.default"
        if form == "none":
            return m.adapter(name, f"{path}.zeros", shape, "buffer")
        if form == "constant":
            return select(m.adapter(name, f"{path}.X", (1,)), 0)
        if form == "vector":
            return m.adapter(name, f"{path}.X", (shape[0], 1) if len(shape) == 2 else shape)
        down = m.adapter(name, f"{path}.Xd", (shape[0], self.rank))
        up = m.adapter(name, f"{path}.Xu", (self.rank, shape[1]))
        return mm(down, up)

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The zeros are in the file too."""
        return nbytes

    def rewritten(self, target: Target) -> int:
        weight = target.weight if self.config_a_b != "none" else 0
        return weight + (target.bias if self._changes_biases else 0)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "GLORA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "bias": self.bias,
            "config_A_B": self.config_a_b,
            "config_C": self.config_c,
            "config_D_E": self.config_d_e,
        }


METHOD = Glora
