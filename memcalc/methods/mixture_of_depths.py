"""Mixture-of-Depths: some layers are for the tokens alone that a router chooses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.base import Kind, Method
from memcalc.options import option
from memcalc.tape.layer import Given
from memcalc.tape.layouts import contiguous_strides
from memcalc.tape.ops import elementwise
from memcalc.tape.ops.choosing import ascending, gather, largest, scatter_add
from memcalc.tape.ops.linear import linear
from memcalc.tape.tape import Array, Tensor, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

R = TypeVar("R")


@final
@dataclass(frozen=True, slots=True)
class MixtureOfDepths(Method):
    """Mixture-of-Depths: every second layer is for an eighth of the tokens (Raposo et al. 2024, arXiv:2404.02258).

    Section 3. A linear router weighs each token; those of each row that weigh most go through the layer, in their
    order, and what it adds to them is times their weight. The others pass it by. Of `route_every` layers the last is
    routed, so that the first one sees all.

    Trainable parameters: all of the model's, and a router of hidden numbers in each of depth // route_every layers, in
    the model's dtype. Keeps for backward: in a routed layer what full fine-tuning keeps, but of the tokens alone that
    go through it; besides the layer's input, all weights, where these tokens stand, and what the layer adds to them.
    Masks, rotary embeddings and ALiBi are taken for them row by row.

    A prefill chooses as training does, by all of a row's tokens. What generation needs instead, which never knows the
    tokens to come, is a predictor or a loss of its own (section 3.5), and neither is part of this.
    """

    kind: ClassVar[Kind] = "lean"
    capacity: float = option(0.125, "--capacity", "share of each row's tokens that go through a routed layer")
    route_every: int = option(2, "--route-every", "of so many layers the last is routed")

    def __post_init__(self) -> None:
        if not 0 < self.capacity <= 1:
            raise InvalidWorkload(f"--capacity must be above 0 and at most 1, not {self.capacity}")

    @property
    def layers_alike(self) -> bool:
        return self.route_every == 1

    @property
    def adds(self) -> bool:
        """Routers are no adapters: what they are put in trains with them."""
        return False

    @property
    def keeps_dtype(self) -> bool:
        return True

    @property
    def frozen_in_use(self) -> bool:
        return False

    def targets(self, model: Anatomy) -> frozenset[str]:
        if self.route_every > model.depth:
            raise InvalidWorkload(
                f"--route-every {self.route_every} routes none of the {model.depth} layers that the model has"
            )
        routed = range(self.route_every - 1, model.depth, self.route_every)
        return frozenset(f"{model.layers}.{index}" for index in routed)

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        return frozenset(model.parameters)

    def layer(self, m: "Builder", x: Tensor, given: Given, run: Callable[[Tensor, Given], R]) -> R:
        """The forward that realize/modules/depth.py gives a layer."""
        if m.path not in m.targets:
            return run(x, given)
        weights = m.call("router", _weights, m.adapter(m.path, "router.weight", (1, x.shape[-1])), x)
        places = self._chosen(m, weights)
        some = gather(x, places, (*places.shape, x.shape[-1]))
        taken = _of_some(m, given, places)
        outputs = run(some, taken)
        output = outputs[0] if isinstance(outputs, tuple) else outputs
        assert isinstance(output, Tensor)
        update = elementwise.mul(elementwise.sub(output, some), gather(weights, places, (*places.shape, 1)))
        summed = scatter_add(x, places, elementwise.cast(update, x.dtype))
        return cast(R, (summed, *outputs[1:]) if isinstance(outputs, tuple) else summed)

    def _chosen(self, m: "Builder", weights: Tensor) -> Array:
        """Where the tokens that weigh most stand in each row, in their order: (b, k)."""
        b, s, _ = weights.shape
        by_row = weights.data.view((b, s), (s, 1))
        unordered = largest(by_row, tokens_through(s, self.capacity), m.attention.gpu)
        return ascending(unordered)

    def graft(self) -> dict[str, Any]:
        return {"module": "depth", "capacity": self.capacity}


def tokens_through(s: int, capacity: float) -> int:
    """How many of a row's `s` tokens go through a routed layer: one at least."""
    return max(1, int(s * capacity))


def _weights(m: "Builder", weight: Tensor, x: Tensor) -> Tensor:
    return linear(x, weight)


def _of_some(m: "Builder", given: Given, places: Array) -> Given:
    """What a layer is given beside its input, of the chosen tokens alone; their positions are dropped."""
    mask = None if given.mask is None else _of_mask(given.mask, places)
    turned = None if given.turned is None else (_of_positions(given.cos, places), _of_positions(given.sin, places))
    alibi = None if given.alibi is None else _of_alibi(given.alibi, places)
    return Given(mask, None, given.cache, turned, alibi)


def _of_mask(mask: Array, places: Array) -> Array:
    """(b, heads, s, s) -> (b, heads, k, k)."""
    if len(mask.shape) == 2:
        raise NotModelled(
            "--padded with --attention flash cannot go with --method mixture_of_depths in estimate: how many of the "
            "chosen tokens are padding is known on the card alone, where memcalc profile measures it"
        )
    b, k = places.shape
    _, heads, _, keys = mask.shape
    rows = new((b, heads, k, keys), mask.dtype, "gather")
    taken = new((b, heads, k, k), rows.dtype, "gather")
    return taken


def _of_positions(x: Tensor, places: Array) -> Tensor:
    """(1, s, width) -> (b, k, width)."""
    return gather(x, places, (*places.shape, x.shape[-1]))


def _of_alibi(alibi: Array, places: Array) -> Array:
    """Of all heads (..., s) -> (..., k)."""
    shape = (*alibi.shape[:-1], places.shape[1])
    return new(shape, alibi.dtype, "gather").view(shape, contiguous_strides(shape))


METHOD = MixtureOfDepths
