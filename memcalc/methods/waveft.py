"""WaveFT: a frozen weight plus the inverse wavelet transform of a sparse matrix."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Target
from memcalc.errors import InvalidWorkload
from memcalc.methods.linears import OnLinears, target_option
from memcalc.options import option
from memcalc.tape.ops.convolving import upsampled
from memcalc.tape.ops.elementwise import add, cast, scale
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.placing import columns_marked, marked, placed
from memcalc.tape.ops.views import cut, narrow, stack, view
from memcalc.tape.tape import Array, Tensor, from_host, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight

# Where they differ from LoRA's.
# peft 0.21.2, utils/constants.py, TRANSFORMERS_MODELS_TO_WAVEFT_TARGET_MODULES_MAPPING
_TARGETS = {"gpt2": ("mlp.c_proj",), "gpt_bigcode": ("mlp.c_proj",)}
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
        return _TARGETS.get(model_type) or super(WaveFT, self).default_targets(model_type)

    def adapted(self, m: "Builder", x: Tensor, w: "Weight", name: str) -> Tensor:
        """peft 0.21.2, tuners/waveft/layer.py, WaveFTLinear.forward. Its call keeps the first x."""
        if self.n_frequency > w.d_in * w.d_out:
            raise InvalidWorkload(
                f"peft refuses this: --n-frequency {self.n_frequency} is above the {w.d_in * w.d_out} entries of {name}"
            )
        spectrum = m.adapter(name, "waveft_spectrum.default", (self.n_frequency,))
        result = w.linear(x)
        update = self._update(spectrum, w)
        x_cast = cast(x, update.dtype)
        result = add(result, linear(x_cast, update))
        return cast(result, x.dtype)

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
        places = columns_marked(shifted, inside)
        entries = marked(spectrum, inside)
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
