"""DEFT: a part of a weight's output space is taken away, and another put in its place."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.errors import InvalidWorkload
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import OnLinears, refuse_eight_bits, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import add, cast, dropout, relu, scale, sub
from memcalc.tape.ops.linear import linear, matmul
from memcalc.tape.ops.solving import qr
from memcalc.tape.ops.views import transpose
from memcalc.tape.tape import Array, Tensor, on_cuda, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.layouts import Shape
    from memcalc.tape.weights import Weight

_P, _R = "deft_P.default", "deft_R.default"


@final
@dataclass(frozen=True, slots=True)
class Deft(OnLinears):
    """DEFT: y = (I - Q S^T) W x + alpha / rank * Q R x with Q = P and S = relu(P), or both the orthonormal basis of P
    (DEFT: Decompositional Efficient Fine-Tuning for Text-to-Image Models, NeurIPS 2025). Without R it is PaRa.

    Trainable parameters: rank * (d_in + d_out) per target, rank * d_out without R; a rank above d_out is d_out. Keeps
    for backward, per target in fp32: the output of W without its bias, the input, and two results of the rank's width.
    What cuSOLVER allocates for itself to orthonormalize P is not in it.
    """

    rank: int = option(8, "--rank", "width of the part", aliases=("--r", "--deft-r"), size=True)
    target: tuple[str, ...] = target_option()
    decomposition_method: str = option(
        "relu",
        "--decomposition-method",
        "what is taken away: by relu(P), or qr, by an orthonormal basis",
        choices=("relu", "qr"),
    )
    alpha: float | None = option(None, "--alpha", "R is scaled by alpha / rank; default: not at all")
    para: bool = option(False, "--para/--no-para", "take away alone, and train no R (PaRa)")
    deft_dropout: float = option(0.0, "--deft-dropout", "dropout of R's input", aliases=("--dropout",))
    init_weights: bool = option(
        True, "--init-weights/--no-init-weights", "R begins as what is taken away, else it is drawn"
    )
    init_scale: float = option(1.0, "--init-scale", "deviation of R at first, where it is drawn")
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "deft_only"))

    def __post_init__(self) -> None:
        check_dropout("--deft-dropout", self.deft_dropout)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/deft/layer.py, DeftLinear.forward. Its call keeps the first x."""
        rank = min(self.rank, w.d_out)
        p = m.adapter(name, _P, (w.d_out, rank))
        injected = None if self.para else m.adapter(name, _R, (rank, w.d_in))
        base = w.linear(x)
        result = cast(base, "fp32")
        product = result if w.bias is None else sub(result, cast(w.bias, "fp32"))
        x_cast = cast(x, "fp32")
        basis, right = self._project(p)
        correction = matmul(matmul(product, right), transpose(basis, 0, 1))
        result = sub(result, correction)
        if injected is not None:
            r = cast(injected, "fp32")
            r = scale(r)
            dropped = dropout(x_cast, self.deft_dropout if m.training else 0.0)
            result = add(result, matmul(linear(dropped, r), transpose(basis, 0, 1)))
        return cast(result, x.dtype)

    def _project(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """DeftLinear._project: Q and S."""
        exact = cast(p, "fp32")
        if self.decomposition_method == "relu":
            return exact, relu(exact)
        basis = qr(exact)
        return basis, basis

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """DeftLayer.update_layer: P and R are drawn on the host, which on the CPU is the device; then R is computed."""
        if self.para or not self.init_weights:
            yield ""
            return
        weight = m.parameters.get(f"{module}.weight")
        if weight is None:
            refuse_eight_bits(m.weights[module], module)  # whose whole numbers peft takes, without their scales
            raise InvalidWorkload(
                "--quant cannot go with --method deft without --para or --no-init-weights: R begins with the weight of "
                f"{module}, which is packed"
            )
        from memcalc.methods.of_lora import from_weight

        shapes = [m.declared_adapters[f"{module}.{part}"].shape for part in (_P, _R)]
        tape.scope = module
        drawn = [] if on_cuda() else [from_weight.block(shape, "empty") for shape in shapes]
        self._compute(weight.data, *shapes)
        for part in (_P, _R):
            if drawn and weight.dtype == "fp32":
                m.parameters[f"{module}.{part}"] = Tensor(drawn.pop(0))
            else:
                yield part
                del drawn[:1]

    def _compute(self, weight: Array, size_of_p: "Shape", size_of_r: "Shape") -> None:
        """DeftLayer.reset_deft_parameters: R is S^T W."""
        from memcalc.methods.of_lora import from_weight

        moved = from_weight.block(size_of_p, "to") if on_cuda() else None
        qr_of_p = self.decomposition_method == "qr"
        right = from_weight.orthonormal(*size_of_p) if qr_of_p else from_weight.block(size_of_p, "relu")
        copied = from_weight.raised(weight.shape, weight.dtype)
        first = from_weight.product(size_of_r)
        scaled = from_weight.block(size_of_r, "div")
        del moved, right, copied, first, scaled

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "DEFT",
            "r": self.rank,
            "target_modules": self.target_modules,
            "decomposition_method": self.decomposition_method,
            "alpha": self.alpha,
            "para": self.para,
            "deft_dropout": self.deft_dropout,
            "init_weights": self.init_weights,
            "init_scale": self.init_scale,
            "bias": self.bias,
        }


METHOD = Deft
