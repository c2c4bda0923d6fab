"""FourierFT: a frozen weight plus the inverse Fourier transform of a sparse spectrum."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_fourierft import layer
from memcalc.options import option
from memcalc.tape.ops.elementwise import cast, scale
from memcalc.tape.ops.fourier import inverse_fft, real
from memcalc.tape.ops.placing import placed
from memcalc.tape.tape import from_host, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight


@final
@dataclass(frozen=True, slots=True)
class FourierFT(OnLinears):
    """FourierFT: y = W x + scaling * Re(F^-1(S)) x, S with n entries that train, at random places
    (Gao et al. 2024, arXiv:2405.03003, section 3).

    Trainable parameters: n_frequency per target. Keeps for backward: the places, each target's input cast; makes
    besides, in forward and backward, several matrices d_out x d_in, two of them complex.
    """

    n_frequency: int = option(1000, "--n-frequency", "entries of the spectrum, 1 to d_in * d_out", size=True)
    scaling: float = option(150.0, "--scaling", "the update is scaled by it")
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "fourier_only"))
    random_loc_seed: int = option(777, "--random-loc-seed", "seed of the places", least=0)

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return layer.default_targets(model_type)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        return layer.adapted(m, x, w, name, "fourierft_spectrum.default", self.n_frequency, self._update)

    def _update(self, spectrum: "Tensor", w: "Weight") -> "Tensor":
        """FourierFTLayer.get_delta_weight: (n,) -> (d_out, d_in). The places come from the host each time."""
        places = from_host((2, self.n_frequency), "int64")
        indices = [places.view((self.n_frequency,), (1,)) for _ in range(2)]
        zeros = new((w.d_out, w.d_in), "fp32", "zeros")
        dense = placed(cast(spectrum, "fp32"), zeros, (indices[0], indices[1]))
        update = scale(real(inverse_fft(dense)))
        return cast(update, spectrum.dtype)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "FOURIERFT",
            "n_frequency": self.n_frequency,
            "scaling": self.scaling,
            "target_modules": self.target_modules,
            "bias": self.bias,
            "random_loc_seed": self.random_loc_seed,
        }


METHOD = FourierFT
