"""WaveFT: a frozen weight plus the inverse wavelet transform of a sparse matrix."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Target
from memcalc.methods.linears import OnLinears, target_option
from memcalc.methods.of_fourierft import layer
from memcalc.options import option
from memcalc.tape.ops.convolving import upsampled
from memcalc.tape.ops.elementwise import scale
from memcalc.tape.ops.placing import placed, taken, where_true
from memcalc.tape.ops.views import cut, narrow, stack, view
from memcalc.tape.tape import Array, Tensor, from_host, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

_FILTERS = {  # lengths. peft 0.21.2, tuners/waveft/wavelet.py
    **{f"db{order}": 2 * order for order in range(1, 11)},
    **{f"sym{order}": 2 * order for order in range(2, 11)},
    **{f"coif{order}": 6 * order for order in range(1, 5)},  # the fifth is too short: peft's update comes out too small
}


@final
@dataclass(frozen=True, slots=True)
class WaveFT(OnLinears):
    """WaveFT: y = W x + scaling * T(S) x, T the inverse wavelet transform, S with n entries that train, at random
    places (Bilican et al. 2025, arXiv:2505.12532, section 3).

    Trainable parameters: n_frequency per target. Keeps for backward: the update, d_out x d_in, and S by its four bands,
    both in the adapters' dtype; the places; each target's input cast. What cuDNN works in is in neither estimate nor
    trace.
    """

    n_frequency: int = option(2592, "--n-frequency", "entries of S, 1 to d_in * d_out", size=True)
    scaling: float = option(25.0, "--scaling", "the update is scaled by it")
    wavelet_family: str = option("db1", "--wavelet-family", "the wavelet", choices=tuple(_FILTERS))
    use_idwt: bool = option(True, "--use-idwt/--no-use-idwt", "transform; else S itself is the update")
    target: tuple[str, ...] = target_option()
    bias: str = option("none", "--bias", "which biases train", choices=("none", "all", "waveft_only"))
    random_loc_seed: int = option(777, "--random-loc-seed", "seed of the places", least=0)

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        return layer.default_targets(model_type)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        return layer.adapted(m, x, w, name, "waveft_spectrum.default", self.n_frequency, self._update)

    def _update(self, spectrum: Tensor, w: "Weight") -> Tensor:
        """WaveFTLayer.get_delta_weight: (n,) -> (d_out, d_in). The places come from the host each time."""
        indices = from_host((2, self.n_frequency), "int64")
        if not self.use_idwt:
            zeros = new((w.d_out, w.d_in), spectrum.dtype, "zeros")
            return scale(placed(spectrum, zeros, _coordinates(indices)))
        length = _FILTERS[self.wavelet_family]
        rows, columns = (width + length - 2 + (width + length) % 2 for width in (w.d_out, w.d_in))
        zeros = new((rows, columns), spectrum.dtype, "zeros")
        shifted = new(indices.shape, "int64", "clone")
        sides = [new((self.n_frequency,), "bool", "lt") for _ in range(2)]
        inside = new((self.n_frequency,), "bool", "and")
        del sides
        places = taken(shifted.shape, "int64", (self.n_frequency, 1))
        entries = where_true(spectrum, inside, self.n_frequency)
        dense = placed(entries, zeros, _coordinates(places))
        bands = [narrow(narrow(dense, 0, rows // 2), 1, columns // 2) for _ in range(4)]
        update = scale(_reconstructed(bands, length))
        for dim, width in enumerate((w.d_out, w.d_in)):
            if update.shape != (w.d_out, w.d_in):
                update = narrow(update, dim, width)
        return update

    def rewritten(self, target: Target) -> int:
        """At most: each entry of S reaches as many numbers as its filters have, and neighbours share some."""
        reached = _FILTERS[self.wavelet_family] ** 2 if self.use_idwt else 1
        return min(target.weight, target.added * reached)

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "WAVEFT",
            "n_frequency": self.n_frequency,
            "scaling": self.scaling,
            "wavelet_family": self.wavelet_family,
            "use_idwt": self.use_idwt,
            "target_modules": self.target_modules,
            "bias": self.bias,
            "random_loc_seed": self.random_loc_seed,
        }


def _coordinates(indices: Array) -> tuple[Array, Array]:
    row = indices.view(indices.shape[1:], (1,))
    return row, row


def _reconstructed(bands: list[Tensor], length: int) -> Tensor:
    """waverec2d.py: four bands (h, w) -> (2 h - length + 2, 2 w - length + 2). Its filters come from the host."""
    height, width = bands[0].shape
    batched = [view(band, (1, height, width)) for band in bands]
    filters = [from_host((length,), bands[0].dtype) for _ in range(4)]
    del filters[0]  # of the two that it has no use for one keeps its name
    bank = _bank(length, bands[0].dtype)
    result = stack(batched, 1)
    result = upsampled(result, bank)
    result = view(result, (1, *result.shape[2:]))
    if length > 2:
        for dim in (1, 1, 2, 2):
            result = cut(result, dim, result.shape[dim] - length + 2)
    return view(result, result.shape[1:])


def _bank(length: int, dtype: str) -> Tensor:
    """_construct_2d_filt: outer products of two filters."""
    products = [new((length, length), dtype, "mul") for _ in range(4)]
    bank = Tensor(new((4, 1, length, length), dtype, "stack"))
    del products
    return bank


METHOD = WaveFT
