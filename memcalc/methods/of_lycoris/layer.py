"""A LyCORIS layer: the frozen one, and an update as large as its weight, which every forward makes anew.

Source: peft 0.21.2, tuners/loha/layer.py, LoHaLayer.forward, Linear._get_delta_activations; the same in tuners/lokr.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from memcalc.errors import NotModelled
from memcalc.methods.base import check_dropout
from memcalc.methods.linears import refuse_conv1d, refuse_packed
from memcalc.tape.ops.elementwise import add, cast, rows_scaled_in_place
from memcalc.tape.ops.linear import linear
from memcalc.tape.ops.views import view
from memcalc.tape.tape import Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.weights import Weight


Update = Callable[[], list[Tensor]]  # the update, and what is held while its rows are dropped


class Dropouts(NamedTuple):
    """Of whole rows of an update, and of whole targets."""

    of_rows: float
    of_modules: float
    dtype: str = ""  # of what rows are multiplied by; "": the update's
    by_mean: bool = True  # kept rows are scaled up

    def check(self) -> None:
        check_dropout("--rank-dropout", self.of_rows)
        check_dropout("--module-dropout", self.of_modules)


def refuse(m: "Builder", w: "Weight", name: str, dropouts: Dropouts) -> None:
    """What a target cannot be, before anything is added beside it."""
    refuse_conv1d(m, w, name)
    refuse_packed(w, name)
    if dropouts.of_modules and m.training:
        raise NotModelled("--module-dropout: a draw decides which targets a forward computes: memcalc trace runs one")


def adapted(m: "Builder", x: Tensor, w: "Weight", update: Update, dropouts: Dropouts) -> Tensor:
    """The layer's output and the update's: x (b, s, d_in) -> (b, s, d_out)."""
    result = w.linear(x)
    result = add(result, _activations(m, x, update, dropouts))
    return cast(result, x.dtype)


def _activations(m: "Builder", x: Tensor, update: Update, dropouts: Dropouts) -> Tensor:
    delta_weight = _delta_weight(m, update, dropouts)
    x_cast = cast(x, delta_weight.dtype)
    return linear(x_cast, delta_weight)


def _delta_weight(m: "Builder", update: Update, dropouts: Dropouts) -> Tensor:
    """The update, some rows of which are dropped. Which ones is drawn on the host."""
    weight, *made_of = update()
    weight = view(weight, weight.shape)
    if dropouts.of_rows and m.training:
        drop = new((weight.shape[0], 1), dropouts.dtype or weight.dtype, "to")
        if dropouts.by_mean:
            mean = new((), drop.dtype, "mean")
            del mean
        weight = rows_scaled_in_place(weight, drop)
    del made_of
    return weight
