"""A bottleneck adapter: h + up(f(down(h))) behind a linear layer (Houlsby et al. 2019, arXiv:1902.00751, section 2.1).

realize/modules/bottleneck.py has the real one; what stands here has its functions and its locals.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from memcalc.anatomy import Anatomy, goes_by, match_targets
from memcalc.errors import InvalidWorkload
from memcalc.options import option
from memcalc.tape.blocks import activation
from memcalc.tape.ops.elementwise import add, cast
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Tensor, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

NON_LINEARITIES = ("relu", "gelu", "gelu_new", "silu", "swish")

# The linear layers that a sub-layer ends in, by the names that they have in any decoder.
ATTENTION = ("o_proj", "out_proj", "attn.c_proj", "attention.dense", "self_attention.dense")
FEED_FORWARD = ("down_proj", "fc2", "mlp.c_proj", "dense_4h_to_h")


def bottleneck_option(*, size: bool = True) -> Any:
    return option(0, "--bottleneck", "width of the bottleneck, in place of a --reduction-factor", least=0, size=size)


def reduction_option(default: int) -> Any:
    return option(None, "--reduction-factor", f"hidden size over the bottleneck's width; default: {default}")


def shape_option(default: str) -> Any:
    return option(default, "--non-linearity", "what stands between down and up", choices=NON_LINEARITIES)


def places_option() -> Any:
    return option(
        (),
        "--target",
        "linear layers that adapters stand behind, by name or suffix; default: where the sub-layers end",
        aliases=("--target-modules", "--targets"),
    )


def check_width(bottleneck: int, reduction_factor: float | None) -> None:
    """Raise InvalidWorkload where both say how wide the bottleneck is."""
    if bottleneck and reduction_factor:
        raise InvalidWorkload("--bottleneck and --reduction-factor are one choice: both say how wide the bottleneck is")


def width(d: int, bottleneck: int, reduction_factor: float) -> int:
    """The bottleneck's width behind a layer of d outputs."""
    return bottleneck or max(1, int(d // reduction_factor))


def ends(model: Anatomy, sub_layers: tuple[tuple[str, ...], ...]) -> frozenset[str]:
    """The linear layer in which each of these sub-layers of each of the model's layers ends.

    Raises InvalidWorkload where that is not one in each.
    """
    found: set[str] = set()
    for names in sub_layers:
        ending = {name for name in model.linears if name.startswith(f"{model.layers}.") and goes_by(name, names)}
        if len(ending) != model.depth:
            raise InvalidWorkload(
                f"{len(ending)} linear layers of this {model.model_type} model go by one of {', '.join(names)}, in "
                f"which sub-layers end, and it has {model.depth} layers: name by --target what adapters go behind"
            )
        found |= ending
    return frozenset(found)


def places(wanted: tuple[str, ...], model: Anatomy, sub_layers: tuple[tuple[str, ...], ...]) -> frozenset[str]:
    """The layers that adapters stand behind: those asked for, or those in which the sub-layers end."""
    return match_targets(wanted, model) if wanted else ends(model, sub_layers)


class Parts(NamedTuple):
    """An adapter's parameters."""

    down: Tensor  # (width, d)
    down_bias: Tensor
    up: Tensor  # (d, width)
    up_bias: Tensor


def parts(m: "Builder", name: str, d: int, width: int, adapter: str = "adapter", *, frozen: bool = False) -> Parts:
    """Those of the adapter beside the linear layer `name`."""
    return Parts(
        m.adapter(name, f"{adapter}.down.weight", (width, d), frozen=frozen),
        m.adapter(name, f"{adapter}.down.bias", (width,), "bias", frozen=frozen),
        m.adapter(name, f"{adapter}.up.weight", (d, width), frozen=frozen),
        m.adapter(name, f"{adapter}.up.bias", (d,), "bias", frozen=frozen),
    )


def behind(m: "Builder", h: Tensor, name: str, width: int, non_linearity: str) -> Tensor:
    """Behind.forward, from the output of the layer `name` on: (..., d) -> (..., d)."""
    own = parts(m, name, h.shape[-1], width)
    update = adapted(in_own_dtype(h, own.down), own, non_linearity)
    return add(h, cast(update, h.dtype))


def adapted(x: Tensor, own: Parts, non_linearity: str) -> Tensor:
    """Bottleneck.forward: (..., d) -> (..., d)."""
    return linear(activation(linear(x, own.down, own.down_bias), non_linearity), own.up, own.up_bias)


def in_own_dtype(x: Tensor, weight: Tensor) -> Tensor:
    """x as an adapter's weight can multiply it; autocast sees to that by itself."""
    return x if tape.autocast is not None else cast(x, weight.dtype)
