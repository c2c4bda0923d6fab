"""SHiRA: some entries of a frozen weight train, at random places."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from memcalc.anatomy import Target
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.kernels import check_dtypes
from memcalc.methods.linears import OnLinears, refuse_conv1d, target_option
from memcalc.options import option
from memcalc.tape.ops.elementwise import scale
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.sparse import by_entries, with_entries
from memcalc.tape.ops.views import clone
from memcalc.tape.tape import new, on_cuda, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.tape import Tensor
    from memcalc.tape.weights import Weight

_WEIGHT, _PLACES = "shira_weight.default", "shira_indices.default"


@final
@dataclass(frozen=True, slots=True)
class Shira(OnLinears):
    """SHiRA: y = (W + S) x, S sparse, its entries trained (Bhardwaj et al. 2024, arXiv:2406.13175, section 3).

    Trainable parameters: rank * (d_in + d_out) per target, as many as LoRA's. Keeps for backward: of each target a
    copy of W with S, its input, S and its places; makes besides, in forward and backward, matrices d_out x d_in in
    the adapters' dtype.
    """

    rank: int = option(
        32, "--rank", "entries that train, as many as LoRA of this rank has", aliases=("--r", "--shira-r"), size=True
    )
    target: tuple[str, ...] = target_option()
    mask_type: str = option("random", "--mask-type", "how the places are chosen", choices=("random",))
    random_seed: int = option(0, "--random-seed", "seed of the places; 0: none", least=0)

    def adapted(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """peft 0.21.2, tuners/shira/layer.py, Linear.forward."""
        refuse_conv1d(m, w, name)
        count = self.rank * (w.d_in + w.d_out)
        if count > w.d_in * w.d_out:
            raise InvalidWorkload(
                f"peft refuses this: --rank {self.rank} trains more entries than the {w.d_out} x {w.d_in} matrix of "
                f"{name} has"
            )
        m.adapter(name, _PLACES, (2, count), "buffer", dtype="int32")
        entries = m.adapter(name, _WEIGHT, (count,))
        if not (m.declaring or on_cuda()):
            raise NotModelled("estimate knows sparse kernels of CUDA only: memcalc profile --device cpu runs them")
        weight = clone(w.dense())
        if tape.autocast is None:
            check_dtypes(f"the linear layer {name}", x.dtype, weight.dtype)
        weight = with_entries(weight, by_entries(scale(entries), weight.shape))
        result = linear(x, weight, w.bias)
        return result

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """Places are drawn, marked in a mask of the weight's shape, and found again in it.

        Source: peft 0.21.2, tuners/shira/mask_functions.py, random_mask; layer.py, ShiraLayer.update_layer.
        """
        packed = m.weights.get(module)
        shape = m.parameters[f"{module}.weight"].shape if packed is None else (packed.d_out, packed.d_in)
        count = self.rank * sum(shape)
        drawn = new((count,), "int64", "to", "adapter")
        ones = new((count,), "bool", "to", "adapter")
        mask = new(shape, "bool", "to", "adapter")
        del drawn, ones
        marked = new(shape, "bool", "eq", "adapter")
        found = new((2, count), "int64", "nonzero", "adapter")
        del marked
        both = new((2, count), "int64", "cat", "adapter")
        yield _PLACES
        del both
        yield _WEIGHT
        del found, mask

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """The places are in the file too."""
        return nbytes

    def rewritten(self, target: Target) -> int:
        return target.added

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "SHIRA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "mask_type": self.mask_type,
            "random_seed": self.random_seed or None,
        }


METHOD = Shira
